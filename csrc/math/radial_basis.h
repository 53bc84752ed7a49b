// Functions of an edge's length: spherical Bessel functions and the enveloped sines of the distance basis.
//
// Everything runs in the type of the inputs, R: some GPUs take 64 times as long for doubles as for floats, and half as
// many fit into a SIMD register. V is R or a SIMD vector of R, S is V or Dual<V>. The arguments, up to 80, are kept in
// two parts until a multiple of pi is off, or float would lose the last digits of their sines. No function divides:
// 1 / (distance * factor) is a product of two inverses.
#pragma once
#include "../kernels.h"
#include "parts.h"

namespace spherenet {

// What the formulas take from the type of the numbers.
template <class R>
struct Precision;
template <>
struct Precision<float> {
  static constexpr float kRound = 12582912.0f;     // 1.5 * 2^23: adding and subtracting it rounds to an integer
  static constexpr float kPiHigh = 3.140625f;      // 10 bits: products with integers below 2^14 are exact
  static constexpr float kPiLow = 9.67653590e-4f;  // the rest of pi
  static constexpr int kSineTerms = 7;             // the first one left out is 1e-8
  static constexpr double kSeriesBelow = 0.9;      // (l + 1): the power series of j_l, above it the recurrence
  static constexpr double kSeriesLeftOut = 3e-8;   // relative to its first term
};
template <>
struct Precision<double> {
  static constexpr double kRound = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr double kPiHigh = 3.14159265346825122833, kPiLow = 1.21542010130123844986e-10;
  static constexpr int kSineTerms = 11;  // 2e-17
  static constexpr double kSeriesBelow = 1, kSeriesLeftOut = 1e-18;
};

// ---- sine and cosine
// -------------------------------------------------------------------------------------------------

template <class V>
struct SineCosine {
  V sine, cosine;
};

// The Taylor series of sin(x) / x and cos(x) in powers of x^2.
template <class R>
struct SineSeries {
  R sine[Precision<R>::kSineTerms], cosine[Precision<R>::kSineTerms];

  SN_HD constexpr SineSeries() : sine{}, cosine{} {
    double term = 1;
    for (int k = 0; k < Precision<R>::kSineTerms; ++k) {
      cosine[k] = R(term);
      sine[k] = R(term / (2 * k + 1));
      term /= -(2 * k + 1.0) * (2 * k + 2);
    }
  }
};

// Without branches, to the rounding of V for |x| < 1e4: x less a multiple of pi, then the series on [-pi/2, pi/2].
template <class V>
SN_HD SineCosine<V> sine_cosine(const Parts<V>& x) {
  using R = typename Bits<V>::Element;
  using Integer = typename Bits<V>::Integer;
  constexpr SineSeries<R> series;
  constexpr int kTerms = Precision<R>::kSineTerms;
  constexpr R kRound = Precision<R>::kRound, kPiHigh = Precision<R>::kPiHigh, kPiLow = Precision<R>::kPiLow;
  const V shifted = x.high * R(0.318309886183790671538) + kRound, turns = shifted - kRound;
  const V r = (x.high - turns * kPiHigh) + (x.low - turns * kPiLow), square = r * r;
  V sine = V{} + series.sine[kTerms - 1], cosine = V{} + series.cosine[kTerms - 1];
  for (int k = kTerms - 2; k >= 0; --k) {
    sine = sine * square + series.sine[k];
    cosine = cosine * square + series.cosine[k];
  }
  // The last bit of `shifted` says whether `turns` is odd, where both change their sign.
  const Integer sign = bits_of(shifted) << int(8 * sizeof(R) - 1);
  return {from_bits<V>(bits_of(V(sine * r)) ^ sign), from_bits<V>(bits_of(cosine) ^ sign)};
}

// The same with the tangent of x, which is in parts above.
template <class V>
SN_HD const SineCosine<V>& along(const SineCosine<V>& at, const V&) {
  return at;
}
template <class V>
SN_HD SineCosine<Dual<V>> along(const SineCosine<V>& at, const Dual<V>& x) {
  return {{at.sine, x.tangent * at.cosine}, {at.cosine, -(x.tangent * at.sine)}};
}

// ---- spherical Bessel functions
// --------------------------------------------------------------------------------------

// j_l(x), its first and its second derivative, for x > 0.
template <class V>
struct SphericalBessel {
  V value, slope, curvature;
};

// j_l(x) / x^l in powers of x^2, for x < most.
template <class R, int l>
struct BesselSeries {
  static constexpr double kMost = Precision<R>::kSeriesBelow * (l + 1);
  static SN_HD constexpr int terms() {
    int k = 0;
    for (double term = 1; term > Precision<R>::kSeriesLeftOut; term *= kMost * kMost / 2 / (k * (2 * l + 2 * k + 1)))
      ++k;
    return k;
  }
  R factor[terms()];

  SN_HD constexpr BesselSeries() : factor{} {
    double term = 1;
    for (int i = 1; i <= l; ++i) term /= 2 * i + 1;
    for (int k = 0; k < terms(); ++k) {
      factor[k] = R(term);
      term /= -2.0 * (k + 1) * (2 * l + 2 * k + 3);
    }
  }
};

// For x < l + 1 the terms fall without cancelling, where the upward recurrence loses all digits.
template <int l, class V>
SN_HD V spherical_bessel_series(const V& x) {
  using R = typename Bits<V>::Element;
  constexpr BesselSeries<R, l> series;
  constexpr int kTerms = BesselSeries<R, l>::terms();
  const V square = x * x;
  V sum = V{} + series.factor[kTerms - 1];
  for (int k = kTerms - 2; k >= 0; --k) sum = sum * square + series.factor[k];
  for (int i = 0; i < l; ++i) sum = sum * x;
  return sum;
}

// inverse = 1 / x. some_small says that x may be below BesselSeries::kMost, in any lane.
template <int l, class V>
SN_HD SphericalBessel<V> spherical_bessel(const Parts<V>& x, const V& inverse, bool some_small) {
  using R = typename Bits<V>::Element;
  SphericalBessel<V> out;
  const SineCosine<V> at = sine_cosine(x);
  V below = at.cosine * inverse;  // "j_{-1}"
  out.value = at.sine * inverse;
  for (int i = 0; i < l; ++i) {
    const V next = inverse * R(2 * i + 1) * out.value - below;
    below = out.value;
    out.value = next;
  }
  V above = inverse * R(2 * l + 1) * out.value - below;  // j_{l+1}
  if (some_small) {
    const V sum = x.sum();
    const auto small = sum < V{} + R(BesselSeries<R, l>::kMost);
    out.value = small ? spherical_bessel_series<l>(sum) : out.value;
    above = small ? spherical_bessel_series<l + 1>(sum) : above;
  }
  out.slope = inverse * R(l) * out.value - above;
  out.curvature = (inverse * inverse * R(l * (l - 1)) - R(1)) * out.value + inverse * R(2) * above;
  return out;
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

// f(std::integral_constant<int, l>): the recurrence and the series are unrolled for each l.
template <class F>
SN_HD void with_order(int l, const F& f) {
  static_assert(kMaxSpherical == 8, "a case for each");
  switch (l) {
    case 0:
      return f(std::integral_constant<int, 0>{});
    case 1:
      return f(std::integral_constant<int, 1>{});
    case 2:
      return f(std::integral_constant<int, 2>{});
    case 3:
      return f(std::integral_constant<int, 3>{});
    case 4:
      return f(std::integral_constant<int, 4>{});
    case 5:
      return f(std::integral_constant<int, 5>{});
    case 6:
      return f(std::integral_constant<int, 6>{});
    case 7:
      return f(std::integral_constant<int, 7>{});
  }
}

// ---- the basis
// -------------------------------------------------------------------------------------------------------

// One edge, or one in each lane.
template <class S>
struct EdgeLength {
  using V = ValueOf<S>;
  S distance, x, envelope, envelope_slope;  // x = distance / cutoff; the slope is that by the distance
  Parts<V> parts;                           // of the distance
  V inverse;                                // 1 / distance
  typename Bits<V>::Element least;          // of the lanes
};

// factor * distance is the argument of a function: of a sine, factor = frequency / cutoff,
template <class R>
struct SineFactor {
  Parts<R> factor;
  R tangent;
};
// or of a spherical Bessel function, factor = root / cutoff.
template <class R>
struct BesselFactor {
  Parts<R> factor;
  R inverse, scale;
};

template <class V>
SN_HD typename Bits<V>::Element least_lane(const V& x) {
  if constexpr (std::is_floating_point<V>::value) {
    return x;
  } else {
    auto least = x[0];
    for (unsigned i = 1; i < sizeof(V) / sizeof(x[0]); ++i) least = x[i] < least ? x[i] : least;
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

  template <class T>
  SN_HD SineFactor<R> sine_factor(const T& frequency, const T& tangent) const {
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
