// Kernels with one mistake each, for the test of the harness; the program's argument names the one to run.
// Prints the error of the launch, or "no error" and the number of results that are NaN.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <exception>
#include <vector>

#include "../../csrc/cuda/launch.h"

using namespace spherenet::cuda;

namespace {

constexpr int kThreads = 64;
constexpr size_t kShared = kThreads * sizeof(float);

// Reverses a block's numbers through shared memory.
template <bool kBarrier>
__global__ void reverse(const float* x, float* y) {
  float* shared = SharedPieces(shared_memory).take<float>(kThreads);
  shared[threadIdx.x] = x[threadIdx.x];
  if (kBarrier) __syncthreads();
  y[threadIdx.x] = shared[kThreads - 1 - threadIdx.x];
}

// The same within warps, where a shuffle does not take a barrier's place.
template <bool kBarrier>
__global__ void neighbors_in_warp(const float* x, float* y) {
  float* shared = SharedPieces(shared_memory).take<float>(kThreads);
  shared[threadIdx.x] = x[threadIdx.x];
  if (kBarrier) __syncwarp();
  const float sum = __shfl_xor_sync(kAllLanes, x[threadIdx.x], 1);
  y[threadIdx.x] = sum + shared[threadIdx.x ^ 2];
}

__global__ void beyond_shared_memory(const float* x, float* y) {
  float* shared = SharedPieces(shared_memory).take<float>(kThreads);
  shared[threadIdx.x + 1] = x[threadIdx.x];
  y[threadIdx.x] = x[threadIdx.x];
}

__global__ void beyond_global_memory(const float* x, float* y) { y[threadIdx.x] = x[threadIdx.x + 1]; }

__global__ void uninitialized(const float*, float* y) {
  y[threadIdx.x] = SharedPieces(shared_memory).take<float>(kThreads)[threadIdx.x];
}

__global__ void two_barriers(const float* x, float* y) {
  if (threadIdx.x % 2) {
    __syncthreads();
  } else {
    y[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
  }
}

__global__ void barrier_of_some(const float* x, float* y) {
  y[threadIdx.x] = x[threadIdx.x];
  if (threadIdx.x < 40) __syncthreads();
}

__global__ void shuffle_of_some(const float* x, float* y) {
  y[threadIdx.x] = threadIdx.x % 32 < 20 ? __shfl_xor_sync(kAllLanes, x[threadIdx.x], 1) : 0;
}

__global__ void two_masks(const float* x, float* y) {
  y[threadIdx.x] = __shfl_xor_sync(threadIdx.x % 2 ? kAllLanes : 0x7fffffffu, x[threadIdx.x], 2);
}

__global__ void not_in_its_mask(const float* x, float* y) {
  y[threadIdx.x] = __shfl_xor_sync(0xffffu, x[threadIdx.x], 1);
}

__global__ void same_number_by_two_blocks(const float* x, float* y) {
  if (threadIdx.x == 0) y[0] = x[blockIdx.x];
}

}  // namespace

int main(int, char** arguments) {
  const std::vector<float> x(kThreads, 1.0f);
  std::vector<float> y(kThreads, 0.0f);
  const auto run = [&](const char* name, auto kernel, spherenet::cuda::Grid grid = 1, size_t shared = kShared) {
    if (std::strcmp(name, arguments[1]) == 0) launch(name, kernel, grid, kThreads, shared, nullptr, x.data(), y.data());
  };
  try {
    run("none", reverse<true>);
    run("none in warps", neighbors_in_warp<true>);
    run("missing barrier", reverse<false>);
    run("missing barrier in warps", neighbors_in_warp<false>);
    run("beyond shared memory", beyond_shared_memory);
    run("beyond global memory", beyond_global_memory);
    run("uninitialized", uninitialized);
    run("two barriers", two_barriers);
    run("barrier of some", barrier_of_some);
    run("shuffle of some", shuffle_of_some);
    run("two masks", two_masks);
    run("not in its mask", not_in_its_mask);
    run("same number by two blocks", same_number_by_two_blocks, 2);
    run("too much shared memory", uninitialized, 1, 300 * 1024);
    run("too many blocks", uninitialized, {1, 70000});
    run("no blocks", reverse<false>, 0);
  } catch (const std::exception& error) {
    std::puts(error.what());
    if (cudaGetLastError() != cudaSuccess) std::puts("the error is left for others");
    return 0;
  }
  int missing = 0;
  for (const float number : y) missing += std::isnan(number);
  std::printf("no error, %d NaN\n", missing);
}
