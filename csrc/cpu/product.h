// Products of linear layers, out = x weight^T + bias. For one instruction set.
//
// A tile of the result stays in registers while the inner dimension runs past it. Every element is the sum, in the
// order of the inner dimension, that starts with the bias (or with what is there): the same bits whatever the number of
// threads.
#pragma once
#include <algorithm>
#include <cstring>

#include "../math/product.h"
#include "kernel.h"

namespace spherenet {
namespace SN_ISA {

// A tile of the result: with a row of `weight` and one number of x they fill the registers.
constexpr int kProductRows = 6;
constexpr int kProductVectors = SN_VECTOR_BYTES == 64 ? 4 : 2;

// Columns first .. first + kVectors * W of a weight, row k at panel + k * stride, padded to whole vectors.
template <class T>
struct ProductPanel {
  const T* panel;
  int64_t stride;
};

template <class T, int kVectors>
void product_tile(const ProductCall<T>& call, const ProductPanel<T>& b, int64_t row, int rows, int64_t column) {
  constexpr int W = kLanes<T>, kColumns = kVectors * W;
  using V = Lanes<T, W>;
  const int columns = int(std::min<int64_t>(call.columns - column, kColumns));
  // A tile that is cut off has a place of its own with room for all: loops of fixed length, which are unrolled, keep
  // the sums in registers.
  const bool whole = rows == kProductRows && columns == kColumns;
  T room[kProductRows * kColumns];
  T* const out = call.out + row * call.columns + column;
  T* const tile = whole ? out : room;
  const int64_t stride = whole ? call.columns : kColumns;
  if (!whole && call.accumulate) {
    std::fill(room, room + kProductRows * kColumns, T(0));
    for (int r = 0; r < rows; ++r)
      std::copy(out + r * call.columns, out + r * call.columns + columns, room + r * stride);
  }
  V sum[kProductRows][kVectors];
#pragma GCC unroll 8
  for (int v = 0; v < kVectors; ++v) {
    const V bias = call.bias ? load_lanes<T>(call.bias + column + v * W, columns - v * W) : V{};
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
  for (int r = 0; r < kProductRows; ++r) x[r] = call.x + (row + std::min(r, rows - 1)) * call.inner;
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
  for (int r = 0; !whole && r < rows; ++r)
    std::copy(tile + r * stride, tile + r * stride + columns, out + r * call.columns);
}

template <class T>
void product(const ProductCall<T>& call, int64_t begin, int64_t end) {
  constexpr int W = kLanes<T>;
  for (int64_t column = 0; column < call.columns; column += W * kProductVectors) {
    const int64_t width = std::min<int64_t>((call.columns - column + W - 1) / W, kProductVectors) * W;
    const bool packed = call.packed != nullptr;
    const ProductPanel<T> b{packed ? call.packed + column * call.inner : call.weight + column,
                            packed ? width : call.columns};
    for (int64_t row = begin; row < end; row += kProductRows) {
      const int rows = int(std::min<int64_t>(end - row, kProductRows));
      switch (width / W) {
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

constexpr int64_t kPackRows = 64;  // of a panel, which stay in the cache while its columns are written

// The columns of the weight panel by panel, each [inner, width] in memory, padded with zeros to whole vectors; nothing
// where the weight is read as it is.
template <class T>
int64_t pack_product(const ProductCall<T>& call, bool write) {
  constexpr int W = kLanes<T>;
  const int64_t size = call.inner * ((call.columns + W - 1) / W * W);
  if (call.weight_by_inner && call.columns % W == 0) return 0;
  if (!write) return size;
  const int64_t along = call.weight_by_inner ? call.columns : 1, across = call.weight_by_inner ? 1 : call.inner;
  for (int64_t column = 0; column < call.columns; column += W * kProductVectors) {
    const int64_t here = std::min<int64_t>(call.columns - column, W * kProductVectors);
    const int64_t width = (here + W - 1) / W * W;
    T* to = call.packed + column * call.inner;
    for (int64_t begin = 0; begin < call.inner; begin += kPackRows)
      for (int64_t n = 0; n < width; ++n) {
        const T* from = call.weight + (column + n) * across;
        for (int64_t k = begin; k < std::min(begin + kPackRows, call.inner); ++k)
          to[k * width + n] = n < here ? from[k * along] : T(0);
      }
  }
  return size;
}

}  // namespace SN_ISA
}  // namespace spherenet

SN_KERNEL(int64_t, pack_product, ProductCall, (bool write), (write))
SN_KERNEL(void, product, ProductCall, (int64_t begin, int64_t end), (begin, end))
