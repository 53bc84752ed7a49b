// radial_filter: messages times a linear function of the distance basis. Derivatives are registered in Python.
#include "../math/radial_filter.h"

#include "checks.h"
#include "stream.h"

namespace spherenet::ops {
namespace {

struct RadialFilterTensors {
  Tensor x, bessel, weight;
  Checks check;
  ScalarType dtype;
  int64_t E, H, K;

  RadialFilterTensors(const Tensor& x_, const Tensor& bessel_, const Tensor& weight_)
      : x(dense(x_)), bessel(dense(bessel_)), weight(dense(weight_)), check("x", x), dtype(floating_dtype("x", x)) {
    check("x", x, dtype, {-1, -1});
    E = x.size(0);
    H = x.size(1);
    check("bessel", bessel, dtype, {E, -1});
    K = bessel.size(1);
    STD_TORCH_CHECK(K >= 1 && K <= kMaxRadial, "bessel: expected 1 .. ", kMaxRadial, " radial functions, got ", K);
    check("weight", weight, dtype, {H, K});
  }

  template <class T>
  RadialFilterCall<T> call() const {
    RadialFilterCall<T> out{};
    out.num_edges = E;
    out.channels = int(H);
    out.num_radial = int(K);
    out.x = data<T>(x);
    out.bessel = data<T>(bessel);
    out.weight = data<T>(weight);
    return out;
  }

  int64_t chunks() const {
    const int64_t size = takes_cuda_kernels(x) ? cuda::kRadialFilterChunk : kRadialFilterChunk;
    return (E + size - 1) / size;
  }

  template <class T>
  void run(const RadialFilterCall<T>& call, Pass pass) const {
    run_where(
        x,
        [&] {
          torch::stable::parallel_for(0, chunks(), 1, [&](int64_t begin, int64_t end) {
            for (int64_t chunk = begin; chunk < end; ++chunk) spherenet::radial_filter(call, pass, chunk);
          });
        },
        [&](auto stream) { cuda::radial_filter(call, pass, stream); });
  }
};

Tensor radial_filter(Tensor x, Tensor bessel, Tensor weight) {
  const RadialFilterTensors in(x, bessel, weight);
  Tensor out = empty(in.x, {in.E, in.H});
  dispatch(in.dtype, [&](auto zero) {
    using T = decltype(zero);
    auto call = in.call<T>();
    call.out = mutable_data<T>(out);
    in.run(call, Pass::kForward);
  });
  return out;
}

// grad_grad_out (empty in the backward pass) and the gradients of x, bessel and weight, [0] where they are not asked
// for.
using RadialFilterOutputs = std::tuple<Tensor, Tensor, Tensor, Tensor>;

RadialFilterOutputs radial_filter_vjp(const RadialFilterTensors& in, const Tensor& grad_out_,
                                      const OptionalTensor& x_tangent, const OptionalTensor& bessel_tangent,
                                      const OptionalTensor& weight_tangent, bool for_bessel, bool for_weight,
                                      Pass pass) {
  const Tensor grad_out = dense(grad_out_);
  const OptionalTensor xt = dense(x_tangent), bt = dense(bessel_tangent), wt = dense(weight_tangent);
  in.check("grad_out", grad_out, in.dtype, {in.E, in.H});
  if (xt) in.check("grad_grad_x", *xt, in.dtype, {in.E, in.H});
  if (bt) in.check("grad_grad_bessel", *bt, in.dtype, {in.E, in.K});
  if (wt) in.check("grad_grad_weight", *wt, in.dtype, {in.H, in.K});
  const bool second = pass == Pass::kDoubleBackward;
  const auto shaped = [&](bool wanted, int64_t rows, int64_t columns) {
    return wanted ? empty(in.x, {rows, columns}) : empty(in.x, {0});
  };
  // Variables and no structured binding, which a lambda of C++17 may not capture.
  const Tensor grad_grad_out = shaped(second, in.E, in.H), grad_x = shaped(true, in.E, in.H);
  const Tensor grad_bessel = shaped(for_bessel, in.E, in.K), grad_weight = shaped(for_weight, in.H, in.K);
  dispatch(in.dtype, [&](auto zero) {
    using T = decltype(zero);
    const Tensor parts = empty(in.x, {for_weight ? in.chunks() : 0, in.H * in.K});
    auto call = in.call<T>();
    call.grad_out = data<T>(grad_out);
    call.x_tangent = data<T>(xt);
    call.bessel_tangent = data<T>(bt);
    call.weight_tangent = data<T>(wt);
    call.out = second ? mutable_data<T>(grad_grad_out) : nullptr;
    call.grad_x = mutable_data<T>(grad_x);
    call.grad_bessel = for_bessel ? mutable_data<T>(grad_bessel) : nullptr;
    call.grad_weight = for_weight ? mutable_data<T>(parts) : nullptr;
    in.run(call, pass);
    if (for_weight) sum_chunks<T>(parts, {grad_weight});
  });
  return {grad_grad_out, grad_x, grad_bessel, grad_weight};
}

std::tuple<Tensor, Tensor, Tensor> radial_filter_backward(Tensor grad_out, Tensor x, Tensor bessel, Tensor weight,
                                                          bool for_bessel, bool for_weight) {
  auto [none, grad_x, grad_bessel, grad_weight] = radial_filter_vjp(
      RadialFilterTensors(x, bessel, weight), grad_out, {}, {}, {}, for_bessel, for_weight, Pass::kBackward);
  return {grad_x, grad_bessel, grad_weight};
}

RadialFilterOutputs radial_filter_double_backward(OptionalTensor grad_grad_x, OptionalTensor grad_grad_bessel,
                                                  OptionalTensor grad_grad_weight, Tensor grad_out, Tensor x,
                                                  Tensor bessel, Tensor weight, bool for_bessel, bool for_weight) {
  return radial_filter_vjp(RadialFilterTensors(x, bessel, weight), grad_out, grad_grad_x, grad_grad_bessel,
                           grad_grad_weight, for_bessel, for_weight, Pass::kDoubleBackward);
}

void implement(torch::stable::detail::StableLibrary& m) {
  m.impl("radial_filter", TORCH_BOX(&radial_filter));
  m.impl("radial_filter_backward", TORCH_BOX(&radial_filter_backward));
  m.impl("radial_filter_double_backward", TORCH_BOX(&radial_filter_double_backward));
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(spherenet_fast, m) {
  m.def("radial_filter(Tensor x, Tensor bessel, Tensor weight) -> Tensor");
  m.def(
      "radial_filter_backward(Tensor grad_out, Tensor x, Tensor bessel, Tensor weight, bool for_bessel, "
      "bool for_weight) "
      "-> (Tensor grad_x, Tensor grad_bessel, Tensor grad_weight)");
  m.def(
      "radial_filter_double_backward(Tensor? grad_grad_x, Tensor? grad_grad_bessel, Tensor? grad_grad_weight, "
      "Tensor grad_out, Tensor x, Tensor bessel, Tensor weight, bool for_bessel, bool for_weight) "
      "-> (Tensor grad_grad_out, Tensor grad_x, Tensor grad_bessel, Tensor grad_weight)");
}
SN_IMPLEMENT(implement)

}  // namespace spherenet::ops
