// The gradient of a linear layer's weight. For the CPU alone: on a GPU it is torch's product.
#pragma once
#include "../kernels.h"

namespace spherenet {

// out[n, k] = sum over rows m of a[m, n] b[m, k], for n in [begin, end)
template <class T>
struct OuterSumCall {
  int64_t num_rows, a_columns, b_columns;  // M, N, K
  const T* a;                              // [M, N]
  const T* b;                              // [M, K]
  T* out;                                  // [N, K]
  bool accumulate;                         // the sums are added to what out holds
};
template <class T>
void outer_sum(const OuterSumCall<T>& call, int64_t begin, int64_t end);

}  // namespace spherenet
