// Products of small matrices on tensor cores, with operands rounded to TF32; in plain C++ where there are none.
#pragma once
#include <cstring>

#include "launch.h"

namespace spherenet::cuda {

// The nearest number with ten binary digits after the first.
__device__ __forceinline__ float round_to_tf32(float x) {
  uint32_t bits;
#if defined(__CUDA_ARCH__)
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
  return __uint_as_float(bits);
#else
  std::memcpy(&bits, &x, sizeof(x));
  bits = (bits + 0x1000u) & ~0x1fffu;
  std::memcpy(&x, &bits, sizeof(x));
  return x;
#endif
}

// sum [16, 8] += a [16, 8] b [8, 8], spread over the lanes of a warp: with g = lane / 4 and t = lane % 4 a lane holds
//   a[g, t], a[g + 8, t], a[g, t + 4], a[g + 8, t + 4];   b[t, g], b[t + 4, g];
//   sum[g, 2t], sum[g, 2t + 1], sum[g + 8, 2t], sum[g + 8, 2t + 1].
__device__ __forceinline__ void add_product(float (&sum)[4], const float (&a)[4], const float (&b)[2]) {
#if defined(__CUDA_ARCH__)
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(__float_as_uint(a[0])), "r"(__float_as_uint(a[1])), "r"(__float_as_uint(a[2])), "r"(__float_as_uint(a[3])),
        "r"(__float_as_uint(b[0])), "r"(__float_as_uint(b[1])));
#else
  const int lane = int(threadIdx.x) % kWarp, g = lane / 4, t = lane % 4;
  for (int k = 0; k < 8; ++k) {
    const int half = k / 4;
    for (int row = 0; row < 2; ++row)
      for (int column = 0; column < 2; ++column) {
        const float left = __shfl_sync(kAllLanes, a[2 * half + row], 4 * g + k % 4);
        const float right = __shfl_sync(kAllLanes, b[half], 4 * (2 * t + column) + k % 4);
        sum[2 * row + column] += left * right;
      }
  }
#endif
}

}  // namespace spherenet::cuda
