// product: x weight^T + bias, a linear layer on the CPU. Its derivatives are made of products and of outer_sum.
#include "../math/product.h"

#include <algorithm>

#include "checks.h"

namespace spherenet::ops {
namespace {

Tensor product(Tensor x_, Tensor weight_, OptionalTensor bias_) {
  const Tensor x = dense(x_);
  const OptionalTensor bias = dense(bias_);
  const Checks check("x", x);
  const ScalarType dtype = floating_dtype("x", x);
  check("x", x, dtype, {-1, -1});
  check("weight", weight_, dtype, {-1, x.size(1)});
  if (bias) check("bias", *bias, dtype, {weight_.size(0)});
  const bool transposed = is_transposed(weight_);
  const Tensor weight = transposed ? weight_ : dense(weight_);
  Tensor out = empty(x, {x.size(0), weight.size(0)});
  dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    ProductCall<T> call{x.size(1),     weight.size(0), transposed,           data<T>(x), data<T>(weight),
                        data<T>(bias), nullptr,        mutable_data<T>(out), false};
    const int64_t rows = x.size(0);
    const Tensor packed = empty(x, {pack_product(call, false)});
    if (packed.numel()) {
      call.packed = mutable_data<T>(packed);
      pack_product(call, true);
    }
    torch::stable::parallel_for(0, (rows + kProductChunk - 1) / kProductChunk, 1, [&](int64_t begin, int64_t end) {
      for (int64_t chunk = begin; chunk < end; ++chunk)
        spherenet::product(call, chunk * kProductChunk, std::min((chunk + 1) * kProductChunk, rows));
    });
  });
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(spherenet_fast, m) { m.def("product(Tensor x, Tensor weight, Tensor? bias) -> Tensor"); }

STABLE_TORCH_LIBRARY_IMPL(spherenet_fast, CPU, m) { m.impl("product", TORCH_BOX(&product)); }

}  // namespace spherenet::ops
