// Products of linear layers, out = x weight^T + bias. For one instruction set.
//
// A tile of the result stays in registers while the inner dimension runs past it. Every element is the sum, in the
// order of the inner dimension, that starts with the bias (or with what is there): the same bits whatever the number of
// threads.
#pragma once
#include <algorithm>
#include <cstring>
#include <utility>

#include "../math/product.h"
#include "kernel.h"

namespace spherenet {
namespace SN_ISA {

// A tile of the result: with a row of `weight` and one number of x they fill the registers.
constexpr int kProductRows = 6;
constexpr int kProductVectors = SN_VECTOR_BYTES == 64 ? 4 : 2;

// The columns of a weight that begin with `column`, padded to whole vectors: row k at panel + k * stride.
template <class T>
struct ProductPanel {
  const T* panel;
  int64_t stride, width;

  static int64_t width_at(const ProductCall<T>& call, int64_t column) {
    constexpr int W = kLanes<T>;
    return std::min<int64_t>((call.columns - column + W - 1) / W, kProductVectors) * W;
  }
  ProductPanel(const ProductCall<T>& call, int64_t column) : width(width_at(call, column)) {
    panel = call.packed ? call.packed + column * call.inner : call.weight + column;
    stride = call.packed ? width : call.columns;
  }
  void fetch(int64_t begin, int64_t end) const {
    constexpr int kLine = 64 / sizeof(T);
    for (int64_t k = begin; k < end; ++k)
      for (int64_t n = 0; n < width; n += kLine) __builtin_prefetch(panel + k * stride + n);
  }
};

// A tile that is cut off has a place of its own with room for all: loops of fixed length, which are unrolled, keep the
// sums in registers.
template <class T, int kVectors, bool kWhole>
void product_tile(const ProductCall<T>& call, const ProductPanel<T>& b, int64_t row, int rows, int64_t column) {
  constexpr int W = kLanes<T>, kColumns = kVectors * W;
  using V = Lanes<T, W>;
  const int columns = int(std::min<int64_t>(call.columns - column, kColumns));
  T room[kWhole ? 1 : kProductRows * kColumns];
  T* const out = call.out + row * call.columns + column;
  T* const tile = kWhole ? out : room;
  const int64_t stride = kWhole ? call.columns : kColumns;
  if (!kWhole && call.accumulate) {
    std::fill(room, room + kProductRows * kColumns, T(0));
    for (int r = 0; r < rows; ++r)
      std::copy(out + r * call.columns, out + r * call.columns + columns, room + r * stride);
  }
  V sum[kProductRows][kVectors];
#pragma GCC unroll 8
  for (int v = 0; v < kVectors; ++v) {
    const V bias = call.bias ? load_lanes<T>(call.bias + column + v * W, kWhole ? W : columns - v * W) : V{};
#pragma GCC unroll 8
    for (int r = 0; r < kProductRows; ++r) sum[r][v] = bias;
  }
  if (call.accumulate) {
#pragma GCC unroll 8
    for (int r = 0; r < kProductRows; ++r)
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) sum[r][v] = load_lanes<T>(tile + r * stride + v * W, W);
  }
  const T* x[kProductRows];
#pragma GCC unroll 8
  for (int r = 0; r < kProductRows; ++r) x[r] = call.x + (row + (kWhole ? r : std::min(r, rows - 1))) * call.inner;
  const T* from = b.panel;
  for (int64_t k = 0; k < call.inner; ++k, from += b.stride) {
    V lanes[kVectors];
    for (int v = 0; v < kVectors; ++v) std::memcpy(&lanes[v], from + v * W, sizeof(V));
    for (int r = 0; r < kProductRows; ++r)
      for (int v = 0; v < kVectors; ++v) sum[r][v] += lanes[v] * x[r][k];
  }
#pragma GCC unroll 8
  for (int r = 0; r < kProductRows; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) store_lanes<T>(V(sum[r][v]), tile + r * stride + v * W, W);
  for (int r = 0; !kWhole && r < rows; ++r)
    std::copy(tile + r * stride, tile + r * stride + columns, out + r * call.columns);
}

template <class T, int kVectors>
void product_tile(const ProductCall<T>& call, const ProductPanel<T>& b, int64_t row, int rows, int64_t column) {
  if (rows == kProductRows && call.columns - column >= b.width)
    product_tile<T, kVectors, true>(call, b, row, rows, column);
  else
    product_tile<T, kVectors, false>(call, b, row, rows, column);
}

// The panel that comes next is fetched while this one is multiplied: panels that lie apart are nothing that a processor
// foresees, and few rows are multiplied faster than their weights arrive.
template <class T>
void product(const ProductCall<T>& call, int64_t begin, int64_t end) {
  const int64_t tiles = (end - begin + kProductRows - 1) / kProductRows;
  for (int64_t column = 0; column < call.columns; column += kLanes<T> * kProductVectors) {
    const ProductPanel<T> b(call, column);
    const bool last = column + b.width >= call.columns;
    const ProductCall<T>* const ahead = last ? call.next : &call;
    const int64_t ahead_rows = ahead ? ahead->inner : 0;
    const ProductPanel<T> next(ahead ? *ahead : call, last ? 0 : column + b.width);
    for (int64_t tile = 0; tile < tiles; ++tile) {
      const int64_t row = begin + tile * kProductRows;
      const int rows = int(std::min<int64_t>(end - row, kProductRows));
      next.fetch(ahead_rows * tile / tiles, ahead_rows * (tile + 1) / tiles);
      switch (b.width / kLanes<T>) {
        case 1:
          product_tile<T, 1>(call, b, row, rows, column);
          break;
        case 2:
          product_tile<T, 2>(call, b, row, rows, column);
          break;
        case 3:
          product_tile<T, std::min(3, kProductVectors)>(call, b, row, rows, column);
          break;
        default:
          product_tile<T, kProductVectors>(call, b, row, rows, column);
      }
    }
  }
}

// Lanes kIndices of two vectors, b's after those of a.
template <class V, int... kIndices>
SN_HD V choose_lanes(const V& a, const V& b, std::integer_sequence<int, kIndices...>) {
#ifdef __clang__
  return __builtin_shufflevector(a, b, kIndices...);
#else
  return __builtin_shuffle(a, b, decltype(a < b){kIndices...});
#endif
}

// Of a square of numbers in rows: squares of kSize numbers are exchanged across the diagonal.
template <int kSize, class V, int... kLane>
SN_HD void exchange_squares(V* rows, std::integer_sequence<int, kLane...>) {
  constexpr int W = sizeof...(kLane);
  using Upper = std::integer_sequence<int, (kLane & kSize ? W + kLane - kSize : kLane)...>;
  using Lower = std::integer_sequence<int, (kLane & kSize ? W + kLane : kLane + kSize)...>;
#pragma GCC unroll 16
  for (int i = 0; i < W; ++i) {
    if (i & kSize) continue;
    const V a = rows[i], b = rows[i + kSize];
    rows[i] = choose_lanes(a, b, Upper{});
    rows[i + kSize] = choose_lanes(a, b, Lower{});
  }
}

template <int kSize, int kWidth, class V>
SN_HD void transpose(V* rows) {
  exchange_squares<kSize>(rows, std::make_integer_sequence<int, kWidth>{});
  if constexpr (kSize > 1) transpose<kSize / 2, kWidth>(rows);
}

// The columns of the weight panel by panel, each [inner, width] in memory, padded with zeros to whole vectors; nothing
// where the weight is read as it is.
template <class T>
int64_t pack_product(const ProductCall<T>& call, bool write) {
  constexpr int W = kLanes<T>;
  const int64_t size = call.inner * ((call.columns + W - 1) / W * W);
  if (call.weight_by_inner && call.columns % W == 0) return 0;
  if (!write) return size;
  const int64_t along = call.weight_by_inner ? call.columns : 1, across = call.weight_by_inner ? 1 : call.inner;
  for (int64_t column = 0; column < call.columns; column += W) {
    const int64_t panel = column / (W * kProductVectors) * (W * kProductVectors), place = column - panel;
    const int64_t width = ProductPanel<T>::width_at(call, panel);
    const int here = int(std::min<int64_t>(call.columns - column, W));
    const T* const from = call.weight + column * across;
    T* const to = call.packed + panel * call.inner + place;
    int64_t k = 0;
    for (; here == W && !call.weight_by_inner && k + W <= call.inner; k += W) {
      Lanes<T, W> rows[W];
#pragma GCC unroll 16
      for (int i = 0; i < W; ++i) std::memcpy(&rows[i], from + i * across + k, sizeof(rows[i]));
      transpose<W / 2, W>(rows);
#pragma GCC unroll 16
      for (int i = 0; i < W; ++i) std::memcpy(to + (k + i) * width, &rows[i], sizeof(rows[i]));
    }
    for (; k < call.inner; ++k)
      for (int i = 0; i < W; ++i) to[k * width + i] = i < here ? from[i * across + k * along] : T(0);
  }
  return size;
}

}  // namespace SN_ISA
}  // namespace spherenet

SN_KERNEL(int64_t, pack_product, ProductCall, (bool write), (write))
SN_KERNEL(void, product, ProductCall, (int64_t begin, int64_t end), (begin, end))
