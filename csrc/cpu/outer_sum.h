// Sums of outer products of rows, a^T b: the gradient of a linear layer's weight. For one instruction set.
//
// A tile of the result stays in registers while a block of rows runs past it, from copies in which what a tile reads is
// contiguous: rows whose length is a power of two would all fall into the same few places of the cache. Every element
// is summed by one thread in the order of the rows, whatever the number of threads.
#pragma once
#include <algorithm>
#include <cstring>

#include "../math/outer_sum.h"
#include "kernel.h"

namespace spherenet {
namespace SN_ISA {

// A tile of the result: with a row of b and one number of a it fills the registers.
constexpr int kOuterVectors = SN_VECTOR_BYTES == 64 ? 3 : 2;
constexpr int kOuterRows = SN_VECTOR_BYTES == 64 ? 8 : 6;
constexpr int64_t kOuterBlock = 96;               // rows of a and b that are copied at a time
constexpr int64_t kOuterChunk = 16 * kOuterRows;  // columns of a that are

// to[m, i] = from[m, i] for i < count, and 0 up to kWidth.
template <int kWidth, class T>
SN_HD void copy_row(const T* from, int64_t count, T* to) {
  if (count >= kWidth) {
    std::memcpy(to, from, sizeof(T) * kWidth);
  } else {
    for (int i = 0; i < kWidth; ++i) to[i] = i < count ? from[i] : T(0);
  }
}

// out[r, k] (+)= sum over m of a[m, r] b[m, k], of which the first `height` rows and `columns` columns are kept.
template <class T, int kVectors>
void outer_tile(const T* a /* [rows, kOuterRows] */, const T* b /* [rows, kVectors W] */, int64_t rows, T* out,
                int64_t stride, int height, int columns, bool accumulate) {
  constexpr int W = kLanes<T>;
  using V = Lanes<T, W>;
  V sum[kOuterRows][kVectors] = {};
  for (int64_t m = 0; m < rows; ++m, a += kOuterRows, b += kVectors * W) {
    V lanes[kVectors];
    for (int v = 0; v < kVectors; ++v) std::memcpy(&lanes[v], b + v * W, sizeof(V));
    for (int r = 0; r < kOuterRows; ++r)
      for (int v = 0; v < kVectors; ++v) sum[r][v] += lanes[v] * a[r];
  }
#pragma GCC unroll 8
  for (int r = 0; r < kOuterRows; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      if (r >= height || v * W >= columns) continue;
      T* to = out + r * stride + v * W;
      const int count = columns - v * W;
      store_lanes<T>(accumulate ? V(load_lanes<T>(to, count) + sum[r][v]) : V(sum[r][v]), to, count);
    }
}

// Columns first .. first + kVectors W of b, met by all columns of a that are copied.
template <class T, int kVectors>
void outer_panel(const OuterSumCall<T>& call, const T* a /* [height / kOuterRows, rows, kOuterRows] */, int64_t height,
                 int64_t row, int64_t rows, T* out, int64_t first) {
  constexpr int kWidth = kVectors * kLanes<T>;
  const int columns = int(std::min<int64_t>(call.b_columns - first, kWidth));
  alignas(64) T b[kOuterBlock * kWidth];
  for (int64_t m = 0; m < rows; ++m)
    copy_row<kWidth>(call.b + (row + m) * call.b_columns + first, columns, b + m * kWidth);
  for (int64_t n = 0; n < height; n += kOuterRows)
    outer_tile<T, kVectors>(a + n * rows, b, rows, out + n * call.b_columns + first, call.b_columns,
                            int(std::min<int64_t>(height - n, kOuterRows)), columns, call.accumulate || row > 0);
}

template <class T>
void outer_sum(const OuterSumCall<T>& call, int64_t begin, int64_t end) {
  constexpr int W = kLanes<T>;
  const int64_t N = call.a_columns, K = call.b_columns;
  if (!call.num_rows && !call.accumulate) std::fill(call.out + begin * K, call.out + end * K, T(0));
  alignas(64) T a[kOuterBlock * kOuterChunk];
  for (int64_t row = 0; row < call.num_rows; row += kOuterBlock) {
    const int64_t rows = std::min(call.num_rows - row, kOuterBlock);
    for (int64_t first = begin; first < end; first += kOuterChunk) {
      const int64_t height = std::min(end - first, kOuterChunk);
      for (int64_t m = 0; m < rows; ++m)
        for (int64_t n = 0; n < height; n += kOuterRows)
          copy_row<kOuterRows>(call.a + (row + m) * N + first + n, height - n, a + n * rows + m * kOuterRows);
      T* out = call.out + first * K;
      for (int64_t k = 0; k < K; k += W * kOuterVectors)
        switch (std::min<int64_t>((K - k + W - 1) / W, kOuterVectors)) {
          case 1:
            outer_panel<T, 1>(call, a, height, row, rows, out, k);
            break;
          case 2:
            outer_panel<T, 2>(call, a, height, row, rows, out, k);
            break;
          default:
            outer_panel<T, kOuterVectors>(call, a, height, row, rows, out, k);
        }
    }
  }
}

}  // namespace SN_ISA
}  // namespace spherenet

SN_KERNEL(void, outer_sum, OuterSumCall, (int64_t begin, int64_t end), (begin, end))
