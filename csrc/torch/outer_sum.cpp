// outer_sum: a^T b, the gradient of a linear layer's weight. Its derivatives are linear layers again.
#include "../math/outer_sum.h"

#include <algorithm>

#include "checks.h"

namespace spherenet::ops {
namespace {

Tensor outer_sum(Tensor a_, Tensor b_) {
  const Tensor a = dense(a_), b = dense(b_);
  const Checks check("a", a);
  const ScalarType dtype = floating_dtype("a", a);
  check("a", a, dtype, {-1, -1});
  check("b", b, dtype, {a.size(0), -1});
  Tensor out = empty(a, {a.size(1), b.size(1)});
  dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    const OuterSumCall<T> call{a.size(0), a.size(1), b.size(1), data<T>(a), data<T>(b), mutable_data<T>(out), false};
    constexpr int64_t kRows = 8;  // of the result, at least; the sums are the same for any number
    torch::stable::parallel_for(0, (call.a_columns + kRows - 1) / kRows, 2, [&](int64_t begin, int64_t end) {
      spherenet::outer_sum(call, begin * kRows, std::min(end * kRows, call.a_columns));
    });
  });
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(spherenet_fast, m) { m.def("outer_sum(Tensor a, Tensor b) -> Tensor"); }

STABLE_TORCH_LIBRARY_IMPL(spherenet_fast, CPU, m) { m.impl("outer_sum", TORCH_BOX(&outer_sum)); }

}  // namespace spherenet::ops
