// The activation silu(x) = x / (1 + exp(-x)).
#pragma once
#include <cstdint>

#include "../kernels.h"
#include "dual.h"

namespace spherenet {

// exp(x) to the rounding of V for |x| < 87, by 2^n exp(r) with |r| <= log(2) / 2; larger |x| are taken as 87.
template <class V>
SN_HD V exponential(const V& unbounded) {
  using T = typename Bits<V>::Element;
  constexpr bool kFloat = sizeof(T) == 4;
  constexpr T kBound = 87;
  constexpr T kRound = kFloat ? T(12582912.0) : T(6755399441055744.0);             // 1.5 * 2^23, 1.5 * 2^52
  constexpr T kHigh = kFloat ? T(0.693145751953125) : T(0.693147180369123816490);  // log(2), trailing zeros
  constexpr T kLow = kFloat ? T(1.42860682030941723e-6) : T(1.90821492927058770002e-10);
  const V lifted = unbounded > V{} - kBound ? unbounded : V{} - kBound;
  const V x = lifted < V{} + kBound ? lifted : V{} + kBound;
  const V shifted = x * T(1.44269504088896340736) + kRound;
  const V n = shifted - kRound;
  const V r = (x - n * kHigh) - n * kLow;
  constexpr int kDegree = kFloat ? 7 : 13;
  double factorial = 1;
  for (int k = 2; k <= kDegree; ++k) factorial *= k;
  V sum = V{} + T(1 / factorial);
  for (int k = kDegree; k > 0; --k) {
    factorial /= k;
    sum = sum * r + T(1 / factorial);
  }
  // The low bits of `shifted` hold n: added to the exponent they multiply by 2^n.
  return from_bits<V>(bits_of(sum) + (bits_of(shifted) << (kFloat ? 23 : 52)));
}

// sigmoid(x) and 1 - sigmoid(x), both to full relative accuracy.
template <class S>
struct Sigmoid {
  S value, complement;
};
template <class V>
SN_HD Sigmoid<V> sigmoid(const V& x) {
  using T = typename Bits<V>::Element;
  const V e = exponential(V(-x));
  const V value = T(1) / (e + T(1));
  return {value, e * value};
}
template <class V>
SN_HD Sigmoid<Dual<V>> sigmoid(const Dual<V>& x) {
  const Sigmoid<V> at = sigmoid(x.value);
  const V slope = x.tangent * at.value * at.complement;
  return {{at.value, slope}, {at.complement, -slope}};
}

template <class S>
SN_HD S silu(const S& x) {
  return x * sigmoid(x).value;
}

// silu'(x) grad, for grad without a tangent.
template <class S, class V>
SN_HD S silu_vjp(const S& x, const V& grad) {
  const Sigmoid<S> at = sigmoid(x);
  return (at.value + x * at.value * at.complement) * grad;
}

// ---- the kernel's arguments: pointers and sizes ---------------------------------------------------------------------

// y = silu(x), element by element over [begin, end); each array [size], all distinct.
template <class T>
struct SiluCall {
  const T* x;
  const T* grad;     // cotangent of y; null in the forward pass
  const T* tangent;  // cotangent of grad_x; null but in the double backward
  T* y;              // silu(x), or its tangent: the gradient for grad
  T* grad_x;         // silu'(x) grad, or its tangent
};
template <class T>
void silu(const SiluCall<T>& call, Pass pass, int64_t begin, int64_t end);

namespace cuda {

template <class T>
void silu(const SiluCall<T>& call, Pass pass, int64_t size, Stream stream);

}  // namespace cuda

}  // namespace spherenet
