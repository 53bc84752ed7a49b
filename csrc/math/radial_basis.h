// Functions of an edge's length: spherical Bessel functions and the enveloped sines of the distance basis.
//
// Everything runs in the type of the inputs, R: some GPUs take 64 times as long for doubles as for floats, and half as
// many fit into a SIMD register. Two numbers stand for each argument, up to 80, until a multiple of pi is subtracted,
// and no function divides: 1 / (factor * distance) is a product of two inverses.
//
// What float reaches, for 7 x 6 functions of distances up to the cutoff of 5, as norm of the error over norm: values
// 1.5e-7, first derivatives 2.2e-7, second ones 2.3e-7. A single number is within 6e-7 of the largest one.
#pragma once
#include <limits>

#include "../kernels.h"
#include "spherical_bessel.h"

namespace spherenet {

// V is R or a SIMD vector of R, S is V or Dual<V>.

// One edge, or one in each lane.
template <class S>
struct EdgeLength {
  using V = ValueOf<S>;
  S distance, x, envelope, envelope_slope;  // x = distance / cutoff; the slope is that by the distance
  Parts<V> parts;                           // of the distance
  V inverse;                                // 1 / distance
  typename Bits<V>::Element least;          // distance of all lanes
};

// What a sine needs of its frequency: its argument is factor * distance with factor = frequency / cutoff.
template <class R>
struct SineFactor {
  Parts<R> factor;
  R tangent;  // of its sum
};
// The same of a spherical Bessel function and its root.
template <class R>
struct BesselFactor {
  Parts<R> factor;
  R inverse, scale;  // 1 / factor, and what stands before the function
};

template <class V>
SN_HD typename Bits<V>::Element least_lane(const V& x) {
  if constexpr (std::is_floating_point<V>::value) {
    return x;
  } else {
    auto least = std::numeric_limits<typename Bits<V>::Element>::infinity();  // NaN in a lane is no concern of others
    for (unsigned i = 0; i < sizeof(V) / sizeof(x[0]); ++i) least = x[i] < least ? x[i] : least;
    return least;
  }
}

template <class S>
struct EnvelopedSine {
  S value, by_distance, by_frequency;
};
template <class S>
struct RadialFunction {
  S value, by_distance;
};

// bessel = u(x) sin(frequency x) and radial = scale j_l(root x) with x = distance / cutoff and the envelope
//
//   u(x) = 1/x + a x^(p-1) + b x^p + c x^(p+1), which meets 0 at x = 1 with two derivatives; 0 beyond.
template <class R>
struct RadialBasis {
  int p;
  Parts<R> cutoff, inverse_cutoff;

  RadialBasis(double cutoff_, int envelope_exponent)
      : p(envelope_exponent + 1), cutoff(parts_of<R>(cutoff_)), inverse_cutoff(parts_of<R>(1 / cutoff_)) {}

  SN_HD SineFactor<R> sine_factor(R frequency, R tangent) const {
    return {halved(product(in_parts(frequency), inverse_cutoff)), tangent * inverse_cutoff.sum()};
  }
  SN_HD BesselFactor<R> bessel_factor(double root, double scale) const {
    const Parts<R> factor = halved(product(parts_of<R>(root), inverse_cutoff));
    return {factor, R(1) / factor.sum(), R(scale)};
  }

  template <class S>
  SN_HD EdgeLength<S> edge(const S& distance) const {
    EdgeLength<S> out;
    const S inverse = reciprocal(distance);
    const ValueOf<S>& value = value_of(distance);
    out.distance = distance;
    out.x = distance * inverse_cutoff.sum();
    set_envelope(inverse * cutoff.sum(), out);
    out.parts = in_parts(value);
    out.inverse = value_of(inverse);
    out.least = least_lane(value);
    return out;
  }

  template <class S>
  SN_HD EnvelopedSine<S> sine(const EdgeLength<S>& edge, const SineFactor<R>& of) const {
    using N = std::conditional_t<is_dual<S>::value, Dual<R>, R>;
    const N factor = with_tangent<N>(of.factor.sum(), of.tangent);
    const SineCosine<S> at = along(sine_cosine(product(edge.parts, of.factor)), S(factor * edge.distance));
    const S wave = edge.envelope * at.cosine;
    return {edge.envelope * at.sine, edge.envelope_slope * at.sine + factor * wave, edge.x * wave};
  }
  template <int l, class S>
  SN_HD RadialFunction<S> radial(const EdgeLength<S>& edge, const BesselFactor<R>& of) const {
    using V = ValueOf<S>;
    const R factor = of.factor.sum();
    const bool some_small = edge.least * factor < R(BesselSeries<R, l>::kMost);
    const auto j = spherical_bessel<l, V>(product(edge.parts, of.factor), edge.inverse * of.inverse, some_small);
    const S argument = edge.distance * factor;
    return {value_at(j, argument) * of.scale, slope_at(j, argument) * (of.scale * factor)};
  }

 private:
  // u = (1 - x)^3 / x sum_k (k+1) (k+2) / 2 x^k  and  u' = -((1 - x) / x)^2 (sum_k (k+1) x^k + p (p+1)^2 / 2 x^p), both
  // over k < p: nothing cancels, and they end smoothly in float, too.
  template <class S>
  SN_HD void set_envelope(const S& inverse_x, EdgeLength<S>& out) const {
    const S left = (out.distance * R(-1) + cutoff.high + cutoff.low) * inverse_cutoff.sum();
    S sum = S{}, slope_sum = S{} + R(p * (p + 1) * (p + 1) / 2);
    for (int k = p; k > 0; --k) {
      sum = sum * out.x + R(k * (k + 1) / 2);
      slope_sum = slope_sum * out.x + R(k);
    }
    const S ratio = left * inverse_x;
    out.envelope = inside(left, ratio * left * left * sum);
    out.envelope_slope = inside(left, ratio * ratio * slope_sum * -inverse_cutoff.sum());
  }
  // y where the distance is below the cutoff, else 0
  template <class V>
  static SN_HD V inside(const V& left, const V& y) {
    return left > V{} ? y : V{};
  }
  template <class V>
  static SN_HD Dual<V> inside(const Dual<V>& left, const Dual<V>& y) {
    return {inside(left.value, y.value), inside(left.value, y.tangent)};
  }
};

// ---- the kernel's arguments: pointers and sizes ---------------------------------------------------------------------

template <class T>
struct RadialBasisCall {
  int64_t num_edges;
  int num_spherical, num_radial, envelope_exponent;
  double cutoff;
  const T* distance;           // [E]
  const T* frequency;          // [K]
  const double* roots;         // [L, K]
  const double* scale;         // [L, K]
  const T* grad_bessel;        // [E, K]
  const T* grad_radial;        // [E, L, K]
  const T* distance_tangent;   // [E]  or null, which is 0
  const T* frequency_tangent;  // [K]  or null
  T* bessel;                   // [E, K]     the value, or its tangent
  T* radial;                   // [E, L, K]
  T* grad_distance;            // [E]
  T* grad_frequency;           // [chunks, K]
};
constexpr int64_t kRadialBasisChunk = 128;  // edges
template <class T>
void radial_basis(const RadialBasisCall<T>& call, Pass pass, int64_t chunk);

namespace cuda {

template <class T>
void radial_basis(const RadialBasisCall<T>& call, Pass pass, Stream stream);  // grad_frequency [chunks, K] as above

}  // namespace cuda

}  // namespace spherenet
