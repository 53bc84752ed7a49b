// Numbers in two parts, for arguments that need more digits than their type has.
#pragma once
#include "dual.h"

namespace spherenet {

// high + low. Of a number that was taken apart, `high` has at most half of the bits: a product of two such is exact.
template <class V>
struct Parts {
  V high, low;

  SN_HD V sum() const { return high + low; }
};

template <class V>
SN_HD V upper_half(const V& x) {
  constexpr int kLowBits = sizeof(typename Bits<V>::Element) == 4 ? 12 : 27;
  return from_bits<V>((bits_of(x) >> kLowBits) << kLowBits);
}
template <class V>
SN_HD Parts<V> in_parts(const V& x) {
  const V high = upper_half(x);
  return {high, x - high};
}
// x with more digits than R has.
template <class R>
SN_HD Parts<R> parts_of(double x) {
  const R high = upper_half(R(x));
  return {high, R(x - high)};
}

// The product of numbers that were taken apart: `high` is exact, `low` is rounded. V may be a SIMD vector of R.
template <class V, class R>
SN_HD Parts<V> product(const Parts<V>& a, const Parts<R>& b) {
  return {a.high * b.high, a.low * b.high + a.sum() * b.low};
}
// A product, taken apart.
template <class V>
SN_HD Parts<V> halved(const Parts<V>& x) {
  const V high = upper_half(x.high);
  return {high, (x.high - high) + x.low};
}

}  // namespace spherenet
