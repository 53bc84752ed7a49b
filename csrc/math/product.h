// A linear layer. For the CPU alone: on a GPU it is torch's product.
#pragma once
#include "../kernels.h"

namespace spherenet {

// out[m, n] = bias[n] + sum over k of x[m, k] weight[n, k], for m in [begin, end)
template <class T>
struct ProductCall {
  int64_t inner, columns;   // K, N
  bool weight_by_inner;     // whether weight lies in memory as [K, N]
  const T* x;               // [M, K]
  const T* weight;          // [N, K], or [K, N]
  const T* bias;            // [N], or null, which is 0
  T* packed;                // what pack_product has written; null where that is nothing
  T* out;                   // [M, N]
  bool accumulate;          // the sums start with what out holds instead of bias
  const ProductCall* next;  // whose weight comes into the cache meanwhile; null for none
};
constexpr int64_t kProductChunk = 96;  // rows, a multiple of the kernels' tiles
template <class T>
int64_t pack_product(const ProductCall<T>& call, bool write);  // the size of call.packed, which it writes if told to
template <class T>
void product(const ProductCall<T>& call, int64_t begin, int64_t end);

}  // namespace spherenet
