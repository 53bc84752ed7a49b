// radial_basis: distance basis and radial functions of edge lengths. Derivatives are registered in Python.
#include "../math/radial_basis.h"

#include "checks.h"
#include "stream.h"

namespace spherenet::ops {
namespace {

struct RadialBasisTensors {
  Tensor distance, frequency, roots, scale;
  Checks check;
  ScalarType dtype;
  int64_t E, L, K;

  RadialBasisTensors(const Tensor& distance_, const Tensor& frequency_, const Tensor& roots_, const Tensor& scale_,
                     double cutoff, int64_t envelope_exponent)
      : distance(dense(distance_)),
        frequency(dense(frequency_)),
        roots(dense(roots_)),
        scale(dense(scale_)),
        check("distance", distance),
        dtype(floating_dtype("distance", distance_)) {
    check("distance", distance, dtype, {-1});
    check("frequency", frequency, dtype, {-1});
    E = distance.size(0);
    K = frequency.size(0);
    check("roots", roots, ScalarType::Double, {-1, K});
    L = roots.size(0);
    check("scale", scale, ScalarType::Double, {L, K});
    STD_TORCH_CHECK(K >= 1 && K <= kMaxRadial, "frequency: expected 1 .. ", kMaxRadial, " radial functions, got ", K);
    STD_TORCH_CHECK(L >= 1 && L <= 8, "roots: expected 1 .. 8 orders, got ", L);
    STD_TORCH_CHECK(cutoff >= 1e-20 && cutoff <= 1e20, "cutoff: expected a number from 1e-20 to 1e20, got ", cutoff);
    STD_TORCH_CHECK(envelope_exponent >= 0 && envelope_exponent < 64, "envelope_exponent: expected 0 .. 63, got ",
                    envelope_exponent);
  }

  template <class T>
  RadialBasisCall<T> call(double cutoff, int64_t envelope_exponent) const {
    RadialBasisCall<T> out{};
    out.num_edges = E;
    out.num_spherical = int(L);
    out.num_radial = int(K);
    out.envelope_exponent = int(envelope_exponent);
    out.cutoff = cutoff;
    out.distance = data<T>(distance);
    out.frequency = data<T>(frequency);
    out.roots = data<double>(roots);
    out.scale = data<double>(scale);
    return out;
  }

  int64_t chunks() const { return (E + kRadialBasisChunk - 1) / kRadialBasisChunk; }

  template <class T>
  void run(const RadialBasisCall<T>& call, Pass pass) const {
    run_where(
        distance,
        [&] {
          torch::stable::parallel_for(0, chunks(), 1, [&](int64_t begin, int64_t end) {
            for (int64_t chunk = begin; chunk < end; ++chunk) spherenet::radial_basis(call, pass, chunk);
          });
        },
        [&](auto stream) { cuda::radial_basis(call, pass, stream); });
  }
};

std::tuple<Tensor, Tensor> radial_basis(Tensor distance, Tensor frequency, Tensor roots, Tensor scale, double cutoff,
                                        int64_t envelope_exponent) {
  const RadialBasisTensors in(distance, frequency, roots, scale, cutoff, envelope_exponent);
  Tensor bessel = empty(in.distance, {in.E, in.K}), radial = empty(in.distance, {in.E, in.L, in.K});
  dispatch(in.dtype, [&](auto zero) {
    using T = decltype(zero);
    auto call = in.call<T>(cutoff, envelope_exponent);
    call.bessel = mutable_data<T>(bessel);
    call.radial = mutable_data<T>(radial);
    in.run(call, Pass::kForward);
  });
  return {bessel, radial};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> radial_basis_vjp(const RadialBasisTensors& in, const Tensor& grad_bessel,
                                                            const Tensor& grad_radial,
                                                            const OptionalTensor& distance_tangent,
                                                            const OptionalTensor& frequency_tangent, double cutoff,
                                                            int64_t envelope_exponent, Pass pass) {
  const Tensor gb = dense(grad_bessel), gr = dense(grad_radial);
  const OptionalTensor dt = dense(distance_tangent), ft = dense(frequency_tangent);
  in.check("grad_bessel", gb, in.dtype, {in.E, in.K});
  in.check("grad_radial", gr, in.dtype, {in.E, in.L, in.K});
  if (dt) in.check("grad_grad_distance", *dt, in.dtype, {in.E});
  if (ft) in.check("grad_grad_frequency", *ft, in.dtype, {in.K});
  const bool second = pass == Pass::kDoubleBackward;
  Tensor bessel = empty(in.distance, {second ? in.E : 0, in.K});
  Tensor radial = empty(in.distance, {second ? in.E : 0, in.L, in.K});
  Tensor grad_distance = empty(in.distance, {in.E}), grad_frequency = empty(in.distance, {in.K});
  dispatch(in.dtype, [&](auto zero) {
    using T = decltype(zero);
    const Tensor parts = empty(in.distance, {in.chunks(), in.K});
    auto call = in.call<T>(cutoff, envelope_exponent);
    call.grad_bessel = data<T>(gb);
    call.grad_radial = data<T>(gr);
    call.distance_tangent = data<T>(dt);
    call.frequency_tangent = data<T>(ft);
    call.bessel = second ? mutable_data<T>(bessel) : nullptr;
    call.radial = second ? mutable_data<T>(radial) : nullptr;
    call.grad_distance = mutable_data<T>(grad_distance);
    call.grad_frequency = mutable_data<T>(parts);
    in.run(call, pass);
    sum_chunks<T>(parts, {grad_frequency});
  });
  return {bessel, radial, grad_distance, grad_frequency};
}

std::tuple<Tensor, Tensor> radial_basis_backward(Tensor grad_bessel, Tensor grad_radial, Tensor distance,
                                                 Tensor frequency, Tensor roots, Tensor scale, double cutoff,
                                                 int64_t envelope_exponent) {
  const RadialBasisTensors in(distance, frequency, roots, scale, cutoff, envelope_exponent);
  auto out = radial_basis_vjp(in, grad_bessel, grad_radial, {}, {}, cutoff, envelope_exponent, Pass::kBackward);
  return {std::get<2>(out), std::get<3>(out)};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> radial_basis_double_backward(
    OptionalTensor grad_grad_distance, OptionalTensor grad_grad_frequency, Tensor grad_bessel, Tensor grad_radial,
    Tensor distance, Tensor frequency, Tensor roots, Tensor scale, double cutoff, int64_t envelope_exponent) {
  const RadialBasisTensors in(distance, frequency, roots, scale, cutoff, envelope_exponent);
  return radial_basis_vjp(in, grad_bessel, grad_radial, grad_grad_distance, grad_grad_frequency, cutoff,
                          envelope_exponent, Pass::kDoubleBackward);
}

void implement(torch::stable::detail::StableLibrary& m) {
  m.impl("radial_basis", TORCH_BOX(&radial_basis));
  m.impl("radial_basis_backward", TORCH_BOX(&radial_basis_backward));
  m.impl("radial_basis_double_backward", TORCH_BOX(&radial_basis_double_backward));
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(spherenet_fast, m) {
  m.def(
      "radial_basis(Tensor distance, Tensor frequency, Tensor roots, Tensor scale, float cutoff, "
      "int envelope_exponent) -> (Tensor bessel, Tensor radial)");
  m.def(
      "radial_basis_backward(Tensor grad_bessel, Tensor grad_radial, Tensor distance, Tensor frequency, Tensor roots, "
      "Tensor scale, float cutoff, int envelope_exponent) -> (Tensor grad_distance, Tensor grad_frequency)");
  m.def(
      "radial_basis_double_backward(Tensor? grad_grad_distance, Tensor? grad_grad_frequency, Tensor grad_bessel, "
      "Tensor grad_radial, Tensor distance, Tensor frequency, Tensor roots, Tensor scale, float cutoff, "
      "int envelope_exponent) -> (Tensor grad_grad_bessel, Tensor grad_grad_radial, Tensor grad_distance, "
      "Tensor grad_frequency)");
}
SN_IMPLEMENT(implement)

}  // namespace spherenet::ops
