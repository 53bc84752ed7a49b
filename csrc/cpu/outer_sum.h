// Sums of outer products of rows, a^T b: the gradient of a linear layer's weight. For one instruction set.
//
// A tile of the result stays in registers while a block of rows runs past it. Every element is summed by one thread in
// the order of the rows, whatever the number of threads.
#pragma once
#include <algorithm>
#include <cstring>

#include "../math/outer_sum.h"
#include "kernel.h"

namespace spherenet {
namespace SN_ISA {

constexpr int64_t kOuterBlock = 256;                          // rows of a and b that stay in the cache
constexpr int kOuterVectors = SN_VECTOR_BYTES == 64 ? 3 : 2;  // with kOuterRows rows they fill the registers
constexpr int kOuterRows = SN_VECTOR_BYTES == 64 ? 8 : 4;

// out[r, k] += sum over m of a[m, r] b[m, k] for kRows rows and kVectors vectors of columns.
template <class T, int kRows, int kVectors>
SN_HD void outer_tile(const T* a /* [rows, a_stride] */, int64_t a_stride, const T* const* b /* of each vector */,
                      const int64_t* b_stride, int64_t rows, T* out, int64_t out_stride, int columns) {
  using V = Lanes<T, kLanes<T>>;
  V sum[kRows][kVectors] = {};
  const T* from[kVectors];
  for (int v = 0; v < kVectors; ++v) from[v] = b[v];
  for (int64_t m = 0; m < rows; ++m, a += a_stride) {
    V lanes[kVectors];
    for (int v = 0; v < kVectors; ++v) {
      std::memcpy(&lanes[v], from[v], sizeof(V));
      from[v] += b_stride[v];
    }
    for (int r = 0; r < kRows; ++r)
      for (int v = 0; v < kVectors; ++v) sum[r][v] += lanes[v] * a[r];
  }
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < kVectors; ++v) {
      T* to = out + r * out_stride + v * kLanes<T>;
      const int count = columns - v * kLanes<T>;
      store_lanes<T>(load_lanes<T>(to, count) + sum[r][v], to, count);
    }
}

template <class T, int kRows>
void outer_row(const T* a, int64_t a_stride, const T* b, int64_t b_stride, const T* tail, int64_t rows, T* out,
               int64_t columns) {
  constexpr int W = kLanes<T>;
  for (int64_t k = 0; k < columns; k += W * kOuterVectors) {
    const int here = int(std::min<int64_t>(columns - k, W * kOuterVectors));
    const T* from[kOuterVectors];
    int64_t stride[kOuterVectors];
    for (int v = 0; v < kOuterVectors; ++v) {
      const bool whole = k + (v + 1) * W <= columns;
      from[v] = whole ? b + k + v * W : tail;
      stride[v] = whole ? b_stride : W;
    }
    switch ((here + W - 1) / W) {
      case 1:
        outer_tile<T, kRows, 1>(a, a_stride, from, stride, rows, out + k, columns, here);
        break;
      case 2:
        outer_tile<T, kRows, 2>(a, a_stride, from, stride, rows, out + k, columns, here);
        break;
      default:
        outer_tile<T, kRows, kOuterVectors>(a, a_stride, from, stride, rows, out + k, columns, here);
    }
  }
}

template <class T>
void outer_sum(const OuterSumCall<T>& call, int64_t begin, int64_t end) {
  constexpr int W = kLanes<T>;
  const int64_t N = call.a_columns, K = call.b_columns;
  if (!call.accumulate) std::fill(call.out + begin * K, call.out + end * K, T(0));
  T tail[kOuterBlock * W];  // the last columns of b, padded to a vector
  const int64_t tail_first = K / W * W;
  for (int64_t first = 0; first < call.num_rows; first += kOuterBlock) {
    const int64_t rows = std::min(call.num_rows - first, kOuterBlock);
    const T* a = call.a + first * N;
    const T* b = call.b + first * K;
    if (tail_first < K)
      for (int64_t m = 0; m < rows; ++m)
        for (int i = 0; i < W; ++i) tail[m * W + i] = tail_first + i < K ? b[m * K + tail_first + i] : T(0);
    int64_t n = begin;
    for (; n + kOuterRows <= end; n += kOuterRows)
      outer_row<T, kOuterRows>(a + n, N, b, K, tail, rows, call.out + n * K, K);
    for (; n < end; ++n) outer_row<T, 1>(a + n, N, b, K, tail, rows, call.out + n * K, K);
  }
}

}  // namespace SN_ISA
}  // namespace spherenet

SN_KERNEL(void, outer_sum, OuterSumCall, (int64_t begin, int64_t end), (begin, end))
