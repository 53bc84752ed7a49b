// How kernels are launched and how a block's shared memory is cut up. Every kernel of this folder goes through here.
#pragma once
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "../kernels.h"

// A block's dynamic shared memory. Where another compiler builds this folder, its cuda_runtime.h declares it.
#if defined(__CUDACC__)
extern __shared__ __align__(16) unsigned char shared_memory[];
#endif

namespace spherenet::cuda {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

template <class A, class B>
SN_HD constexpr auto ceil_div(A a, B b) {
  return (a + b - 1) / b;
}

// Hands out a block's shared memory piece by piece, each aligned to 16 bytes. A layout is a function of one of these
// and of some sizes: in a kernel, over `shared_memory`, it gives pointers; on the host, over nothing, it counts bytes.
class SharedPieces {
 public:
  SN_HD explicit SharedPieces(unsigned char* base = nullptr) : base_(base) {}

  template <class T>
  SN_HD T* take(int count) {
#if defined(__CUDA_ARCH__)
    T* piece = reinterpret_cast<T*>(base_ + used_);  // shared memory may begin at address 0
#else
    T* piece = base_ ? reinterpret_cast<T*>(base_ + used_) : nullptr;
#endif
    used_ += ceil_div(unsigned(count) * unsigned(sizeof(T)), 16u) * 16u;
    return piece;
  }
  SN_HD size_t bytes() const { return used_; }

 private:
  unsigned char* base_;
  unsigned used_ = 0;
};

// Zeros for array[first .. end), padding that belongs to no tile, shared by all blocks of a grid along x. Where a grid
// has blocks along y, too, one row of them calls it.
template <int kBlockThreads, class T>
__device__ __forceinline__ void clear_tail(T* array, int64_t first, int64_t end) {
  const int64_t step = int64_t(gridDim.x) * kBlockThreads;
  for (int64_t i = first + int64_t(blockIdx.x) * kBlockThreads + threadIdx.x; i < end; i += step) array[i] = 0;
}

// The number of blocks, along up to three axes. None along one of them means that there is nothing to do.
struct Grid {
  int64_t x, y, z;
  Grid(int64_t x_, int64_t y_ = 1, int64_t z_ = 1) : x(x_), y(y_), z(z_) {}
};

// Enqueues kernel(arguments...), arguments being converted to the kernel's parameters.
template <class... Parameters, class... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), Grid grid, dim3 block, size_t shared_bytes, Stream stream,
            const Arguments&... arguments) {
  static_assert(sizeof...(Parameters) == sizeof...(Arguments), "as many arguments as the kernel has parameters");
  if (grid.x <= 0 || grid.y <= 0 || grid.z <= 0) return;
  constexpr int64_t kMostX = 2147483647, kMostYZ = 65535;
  // More than kSharedUnasked bytes have to be asked for. Always the same number, what every architecture of the build
  // has: the answer holds for the kernel, so two threads that asked for different ones would disturb each other.
  constexpr size_t kSharedUnasked = 48 * 1024, kSharedMost = 99 * 1024;
  const auto fail = [&](const std::string& cause) {
    throw std::runtime_error(std::string("spherenet_fast: kernel ") + name + ": " + cause);
  };
  const auto check = [&](cudaError_t status) {
    if (status == cudaSuccess) return;
    cudaGetLastError();  // else the next call of somebody else would report this failure
    fail(cudaGetErrorString(status));
  };
  if (shared_bytes > kSharedMost)
    fail("expected a GPU with " + std::to_string(shared_bytes) +
         " bytes of shared memory a block, got less; SphereNet(kernels=False) does without");
  if (grid.x > kMostX || grid.y > kMostYZ || grid.z > kMostYZ)
    fail("expected at most 2147483647 x 65535 x 65535 blocks, got " + std::to_string(grid.x) + " x " +
         std::to_string(grid.y) + " x " + std::to_string(grid.z));
  if (shared_bytes > kSharedUnasked) {
    check(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                               int(kSharedMost)));
  }
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(unsigned(grid.x), unsigned(grid.y), unsigned(grid.z));
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = static_cast<cudaStream_t>(stream);
  check(cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...));
}

}  // namespace spherenet::cuda
