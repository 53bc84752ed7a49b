// Functions of an edge's length: spherical Bessel functions and the enveloped sines of the distance basis.
// Everything is in double: an edge costs little beside its triplets, and float inputs then lose nothing.
#pragma once
#include "../kernels.h"
#include "dual.h"

namespace spherenet {

// V is double or a SIMD vector of doubles, S is V or Dual<V>.

SN_HD bool any(bool condition) { return condition; }
template <class Mask>
SN_HD bool any(const Mask& lanes) {
  bool found = false;
  for (unsigned i = 0; i < sizeof(Mask) / sizeof(lanes[0]); ++i) found |= lanes[i] != 0;
  return found;
}

template <class V>
struct SineCosine {
  V sine, cosine;
};

// Without branches, to 2e-15 for |x| < 1e4: x less a multiple of 2 pi, then the Taylor series on [-pi, pi].
template <class V>
SN_HD SineCosine<V> sine_cosine(const V& x) {
  constexpr double kRound = 6755399441055744.0;  // 1.5 * 2^52: adding and subtracting it rounds to an integer
  constexpr double kTwoPiHigh = 6.28318530717958534, kTwoPiLow = 2.44929359829470640e-16;
  const V turns = (x * 0.15915494309189535 + kRound) - kRound;
  const V r = (x - turns * kTwoPiHigh) - turns * kTwoPiLow;
  const V square = r * r;
  V sine = V{} + 1.0, cosine = V{} + 1.0;
  for (int k = 15; k > 0; --k) {
    sine = 1.0 - sine * square * (1.0 / (2 * k * (2 * k + 1)));
    cosine = 1.0 - cosine * square * (1.0 / (2 * k * (2 * k - 1)));
  }
  return {sine * r, cosine};
}
template <class V>
SN_HD SineCosine<Dual<V>> sine_cosine(const Dual<V>& x) {
  const SineCosine<V> at = sine_cosine(x.value);
  return {{at.sine, x.tangent * at.cosine}, {at.cosine, x.tangent * at.sine * -1.0}};
}

// j_l(x), its first and its second derivative, for x > 0.
template <class V>
struct SphericalBessel {
  V value, slope, curvature;
};

// The power series: for x < l + 1 its terms fall without cancelling, where the upward recurrence loses all digits.
template <class V>
SN_HD V spherical_bessel_series(int l, const V& x) {
  constexpr int kTerms = 20;  // the first one left out is below 1e-18 for l <= 8
  V sum = V{} + 1.0, power = V{} + 1.0;
  for (int k = kTerms; k > 0; --k) sum = 1.0 - sum * x * x * (0.5 / (k * (2 * l + 2 * k + 1)));
  for (int i = 1; i <= l; ++i) power = power * x * (1.0 / (2 * i + 1));
  return power * sum;
}

template <class V>
SN_HD SphericalBessel<V> spherical_bessel(int l, const V& x) {
  SphericalBessel<V> out;
  const SineCosine<V> at = sine_cosine(x);
  const V inverse = 1.0 / x;
  V below = at.cosine * inverse;  // "j_{-1}"
  out.value = at.sine * inverse;
  for (int i = 0; i < l; ++i) {
    const V next = inverse * out.value * double(2 * i + 1) - below;
    below = out.value;
    out.value = next;
  }
  V above = inverse * out.value * double(2 * l + 1) - below;  // j_{l+1}, for j_l' = l/x j_l - j_{l+1}
  const auto small = x < V{} + double(l + 1);
  if (any(small)) {
    out.value = small ? spherical_bessel_series(l, x) : out.value;
    above = small ? spherical_bessel_series(l + 1, x) : above;
  }
  out.slope = inverse * out.value * double(l) - above;
  out.curvature = inverse * out.slope * -2.0 - (1.0 - inverse * inverse * double(l * (l + 1))) * out.value;
  return out;
}

template <class V>
SN_HD const V& value_of(const V& x) {
  return x;
}
template <class V>
SN_HD const V& value_of(const Dual<V>& x) {
  return x.value;
}
template <class V>
SN_HD V value_at(const SphericalBessel<V>& j, const V&) {
  return j.value;
}
template <class V>
SN_HD V slope_at(const SphericalBessel<V>& j, const V&) {
  return j.slope;
}
template <class V>
SN_HD Dual<V> value_at(const SphericalBessel<V>& j, const Dual<V>& x) {
  return {j.value, j.slope * x.tangent};
}
template <class V>
SN_HD Dual<V> slope_at(const SphericalBessel<V>& j, const Dual<V>& x) {
  return {j.slope, j.curvature * x.tangent};
}

// u(x) = 1/x + a x^(p-1) + b x^p + c x^(p+1), which meets 0 at x = 1 with two derivatives; 0 beyond.
struct Envelope {
  int p;

  // u(x) and u'(x)
  template <class S>
  SN_HD void operator()(const S& x, S& u, S& slope) const {
    const double a = -(p + 1) * (p + 2) / 2.0, b = p * (p + 2.0), c = -p * (p + 1) / 2.0;
    const S inverse_x = inverse(x);
    S power = p == 1 ? inverse_x : S{} + 1.0;  // x^(p-2)
    for (int i = 2; i < p; ++i) power = power * x;
    u = within(x, inverse_x + power * x * (x * (x * c + b) + a));
    slope = within(x, inverse_x * inverse_x * -1.0 + power * (x * (x * (c * (p + 1)) + b * p) + a * (p - 1)));
  }

  template <class V>
  static SN_HD V inverse(const V& x) {
    return 1.0 / x;
  }
  template <class V>
  static SN_HD Dual<V> inverse(const Dual<V>& x) {
    const V at = 1.0 / x.value;
    return {at, x.tangent * at * at * -1.0};
  }
  // y where x < 1, else 0
  template <class V>
  static SN_HD V within(const V& x, const V& y) {
    return x < V{} + 1.0 ? y : V{};
  }
  template <class V>
  static SN_HD Dual<V> within(const Dual<V>& x, const Dual<V>& y) {
    return {within(x.value, y.value), within(x.value, y.tangent)};
  }
};

// The functions of one edge, or of one in each lane: x = distance / cutoff. N is double or Dual<double>.
struct RadialBasis {
  int num_spherical, num_radial;
  double cutoff;
  Envelope envelope;
  const double* roots;  // [L, K]
  const double* scale;  // [L, K]

  // One function and the cotangents of what it depends on, given that of its value.
  //   bessel = u sin(frequency x), where u is the envelope at x and slope its derivative
  template <class S, class N>
  static SN_HD S bessel(const S& x, const S& u, const N& frequency) {
    return u * sine_cosine(frequency * x).sine;
  }
  template <class S>
  struct BesselGrad {
    S x, frequency;
  };
  template <class S, class N, class V>
  static SN_HD BesselGrad<S> bessel_vjp(const S& x, const S& u, const S& slope, const N& frequency, const V& grad) {
    const SineCosine<S> at = sine_cosine(frequency * x);
    const S wave = at.cosine * u;
    return {(slope * at.sine + frequency * wave) * grad, x * wave * grad};
  }
  //   radial = scale[i] j_l(roots[i] x), i = l K + n
  template <class S>
  SN_HD S radial(const S& x, int l, int i) const {
    const S argument = x * roots[i];
    return value_at(spherical_bessel(l, value_of(argument)), argument) * scale[i];
  }
  template <class S, class V>
  SN_HD S radial_vjp(const S& x, int l, int i, const V& grad) const {
    const S argument = x * roots[i];
    return slope_at(spherical_bessel(l, value_of(argument)), argument) * (grad * (scale[i] * roots[i]));
  }

  // All of them: bessel [K], radial [L, K].
  template <class S, class N>
  SN_HD void value(const S& distance, const N* frequency, S* bessel_, S* radial_) const {
    const S x = distance * (1 / cutoff);
    S u, slope;
    envelope(x, u, slope);
    for (int n = 0; n < num_radial; ++n) bessel_[n] = bessel(x, u, frequency[n]);
    for (int l = 0, i = 0; l < num_spherical; ++l)
      for (int n = 0; n < num_radial; ++n, ++i) radial_[i] = radial(x, l, i);
  }

  // Cotangents of the distance and (added to grad_frequency [K]) of the frequencies.
  template <class S, class N, class V>
  SN_HD S vjp(const S& distance, const N* frequency, const V* grad_bessel, const V* grad_radial,
              S* grad_frequency) const {
    const S x = distance * (1 / cutoff);
    S u, slope, grad_x = S{};
    envelope(x, u, slope);
    for (int n = 0; n < num_radial; ++n) {
      const BesselGrad<S> grad = bessel_vjp(x, u, slope, frequency[n], grad_bessel[n]);
      grad_x = grad_x + grad.x;
      grad_frequency[n] = grad_frequency[n] + grad.frequency;
    }
    for (int l = 0, i = 0; l < num_spherical; ++l)
      for (int n = 0; n < num_radial; ++n, ++i) grad_x = grad_x + radial_vjp(x, l, i, grad_radial[i]);
    return grad_x * (1 / cutoff);
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
