// Stands in for CUDA's header of this name: csrc/cuda/*.cu then compiles as C++, and the threads of a block run as
// fibers on the CPU, one at a time, each until its next barrier or shuffle (blocks.cpp).
//
// It has what the kernels use and no more. A __shared__ variable is one static variable, since blocks run one after
// another; unlike the dynamic shared memory, which every block finds full of NaN, it keeps what the last block left.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#define __global__
#define __device__
#define __host__
#define __constant__
#define __shared__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))

// ---- types ---------------------------------------------------------------------------------------------------------

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

template <class T>
struct alignas(2 * sizeof(T)) Two {
  T x, y;
};
template <class T>
struct alignas(16) Four {
  T x, y, z, w;
};
using int2 = Two<int>;
using uint2 = Two<unsigned>;
using float2 = Two<float>;
using double2 = Two<double>;
using int4 = Four<int>;
using uint4 = Four<unsigned>;
using float4 = Four<float>;
inline int2 make_int2(int x, int y) { return {x, y}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline double2 make_double2(double x, double y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

// ---- what a thread sees --------------------------------------------------------------------------------------------

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
constexpr int warpSize = 32;
extern unsigned char* shared_memory;  // exactly as long as the launch said

namespace harness {

// Where in the source a thread waits: threads that meet must meet at the same line.
struct Place {
  const char* what = "";
  const char* file = "";
  int line = 0;
};
void block_barrier(Place place);
// What the lane `source` gives; every lane of the mask gives `bits`.
uint64_t exchange(unsigned mask, uint64_t bits, int source, Place place);
unsigned ballot(unsigned mask, bool vote, Place place);

inline int lane() { return int(threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) % warpSize; }
template <class T>
T exchange(unsigned mask, T value, int source, Place place) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "shuffles take 32 or 64 bits");
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  bits = exchange(mask, bits, source, place);
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

}  // namespace harness

#define HARNESS_PLACE const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(HARNESS_PLACE) { harness::block_barrier({"__syncthreads", file, line}); }
inline void __syncwarp(unsigned mask = 0xffffffffu, HARNESS_PLACE) {
  harness::exchange(mask, uint64_t(0), harness::lane(), {"__syncwarp", file, line});
}
inline unsigned __ballot_sync(unsigned mask, bool vote, HARNESS_PLACE) {
  return harness::ballot(mask, vote, {"__ballot_sync", file, line});
}
// Past the end of a group of `width` lanes, a lane gets its own value back.
template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = warpSize, HARNESS_PLACE) {
  const int first = harness::lane() & ~(width - 1);
  return harness::exchange(mask, value, first + (source & (width - 1)), {"__shfl_sync", file, line});
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = warpSize, HARNESS_PLACE) {
  const int own = harness::lane(), source = own + int(delta), end = (own & ~(width - 1)) + width;
  return harness::exchange(mask, value, source < end ? source : own, {"__shfl_down_sync", file, line});
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = warpSize, HARNESS_PLACE) {
  const int own = harness::lane(), source = own - int(delta), first = own & ~(width - 1);
  return harness::exchange(mask, value, source >= first ? source : own, {"__shfl_up_sync", file, line});
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = warpSize, HARNESS_PLACE) {
  const int own = harness::lane(), source = own ^ bits, end = (own & ~(width - 1)) + width;
  return harness::exchange(mask, value, source < end ? source : own, {"__shfl_xor_sync", file, line});
}

// ---- functions -----------------------------------------------------------------------------------------------------

using std::max;
using std::min;
inline float rsqrtf(float x) { return 1 / std::sqrt(x); }
inline double rsqrt(double x) { return 1 / std::sqrt(x); }
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline int __ffs(int bits) { return __builtin_ffs(bits); }
template <class T>
T __ldg(const T* at) {
  return *at;
}

// ---- the host's side -----------------------------------------------------------------------------------------------

enum cudaError_t { cudaSuccess, cudaErrorInvalidValue, cudaErrorInvalidConfiguration, cudaErrorLaunchFailure };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize, cudaFuncAttributePreferredSharedMemoryCarveout };
using cudaStream_t = struct CUstream_st*;
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
};

// The cause; after cudaErrorLaunchFailure it says which threads waited where.
const char* cudaGetErrorString(cudaError_t error);
cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value);

namespace harness {
inline cudaError_t last_error = cudaSuccess;  // of a launch
// Runs body(state) as every thread of the grid, and returns when all are through.
cudaError_t run_grid(const cudaLaunchConfig_t& config, const void* kernel, void (*body)(void*), void* state);
}  // namespace harness

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  auto call = [&] { kernel(Parameters(arguments)...); };
  return harness::last_error = harness::run_grid(
             *config, reinterpret_cast<const void*>(kernel),
             [](void* state) { (*static_cast<decltype(call)*>(state))(); }, &call);
}
// What the last launch that failed has left, once.
inline cudaError_t cudaGetLastError() { return std::exchange(harness::last_error, cudaSuccess); }
