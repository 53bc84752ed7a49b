// silu: the activation, with both derivatives in one pass over memory each. They are registered in Python.
#include "../math/silu.h"

#include "checks.h"
#include "stream.h"

namespace spherenet::ops {
namespace {

// y (or the gradient for grad) and grad_x; empty where the pass has none.
std::tuple<Tensor, Tensor> silu_pass(const Tensor& x_, const OptionalTensor& grad_, const OptionalTensor& tangent_,
                                     Pass pass) {
  const Tensor x = dense(x_);
  const ScalarType dtype = floating_dtype("x", x);
  const std::vector<int64_t> shape(x.sizes().begin(), x.sizes().end());
  const Checks check("x", x);
  const OptionalTensor grad = dense(grad_), tangent = dense(tangent_);
  if (grad) check("grad", *grad, dtype, shape);
  if (tangent) check("grad_grad_x", *tangent, dtype, shape);
  Tensor y = pass == Pass::kBackward ? empty(x, {0}) : empty(x, shape);
  Tensor grad_x = pass == Pass::kForward ? empty(x, {0}) : empty(x, shape);
  dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    const SiluCall<T> call{data<T>(x), data<T>(grad), data<T>(tangent), mutable_data<T>(y), mutable_data<T>(grad_x)};
    run_where(
        x,
        [&] {
          torch::stable::parallel_for(0, x.numel(), 16384,
                                      [&](int64_t begin, int64_t end) { spherenet::silu(call, pass, begin, end); });
        },
        [&](auto stream) { cuda::silu(call, pass, x.numel(), stream); });
  });
  return {y, grad_x};
}

Tensor silu(Tensor x) { return std::get<0>(silu_pass(x, {}, {}, Pass::kForward)); }

Tensor silu_backward(Tensor grad, Tensor x) { return std::get<1>(silu_pass(x, grad, {}, Pass::kBackward)); }

std::tuple<Tensor, Tensor> silu_double_backward(Tensor grad_grad_x, Tensor grad, Tensor x) {
  return silu_pass(x, grad, grad_grad_x, Pass::kDoubleBackward);
}

void implement(torch::stable::detail::StableLibrary& m) {
  m.impl("silu", TORCH_BOX(&silu));
  m.impl("silu_backward", TORCH_BOX(&silu_backward));
  m.impl("silu_double_backward", TORCH_BOX(&silu_double_backward));
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(spherenet_fast, m) {
  m.def("silu(Tensor x) -> Tensor");
  m.def("silu_backward(Tensor grad, Tensor x) -> Tensor");
  m.def("silu_double_backward(Tensor grad_grad_x, Tensor grad, Tensor x) -> (Tensor grad_grad, Tensor grad_x)");
}
SN_IMPLEMENT(implement)

}  // namespace spherenet::ops
