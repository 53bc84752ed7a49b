// Sines and spherical Bessel functions, with their derivatives, in float or double: V is one of them or a SIMD vector
// of it. Arguments come in parts, without which float would lose the digits of their sines, and nothing divides.
#pragma once
#include "parts.h"

namespace spherenet {

// What the formulas take from the type of the numbers.
template <class R>
struct Precision;
template <>
struct Precision<float> {
  static constexpr float kRound = 12582912.0f;     // 1.5 * 2^23: adding and subtracting it rounds to an integer
  static constexpr float kPiHigh = 3.140625f;      // 8 bits: products with integers below 2^16 are exact
  static constexpr float kPiLow = 9.67653590e-4f;  // the rest of pi
  static constexpr int kSineTerms = 7;             // the first one left out is 1e-8
  static constexpr double kSeriesBelow = 0.9;      // times l + 1: the power series of j_l, else the recurrence
  static constexpr double kSeriesLeftOut = 3e-8;   // relative to its first term
};
template <>
struct Precision<double> {
  static constexpr double kRound = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr double kPiHigh = 3.14159265346825122833, kPiLow = 1.21542010130123844986e-10;
  static constexpr int kSineTerms = 11;  // 2e-17
  static constexpr double kSeriesBelow = 1, kSeriesLeftOut = 1e-18;
};

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
  V r = (x.high - turns * kPiHigh) + (x.low - turns * kPiLow);
  r = r < V{} - R(2) ? V{} - R(2) : r;  // arguments so large that nothing is left of them: the results stay finite
  r = r > V{} + R(2) ? V{} + R(2) : r;
  const V square = r * r;
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

// j_l(x), its first and its second derivative, for x > 0. All follow from j_l and j_{l+1}.
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

}  // namespace spherenet
