// Dual numbers: a value and its derivative along one direction.
// The vector-Jacobian product of a function, evaluated on duals, is its second derivative along that direction, so no
// second derivative is written anywhere. T is a floating-point number or a SIMD vector of them; operands may mix the
// two (a vector times a scalar), and anything that is not a dual has the tangent 0.
#pragma once
#include <cmath>
#include <cstdint>
#include <type_traits>

#include "macros.h"

namespace spherenet {

template <class T>
struct Dual {
  T value;
  T tangent;
};

template <class T>
struct is_dual : std::false_type {};
template <class T>
struct is_dual<Dual<T>> : std::true_type {};
template <class T>
using if_not_dual = std::enable_if_t<!is_dual<T>::value, int>;

template <class A, class B>
SN_HD auto operator+(const Dual<A>& a, const Dual<B>& b) -> Dual<decltype(a.value + b.value)> {
  return {a.value + b.value, a.tangent + b.tangent};
}
template <class A, class B>
SN_HD auto operator-(const Dual<A>& a, const Dual<B>& b) -> Dual<decltype(a.value - b.value)> {
  return {a.value - b.value, a.tangent - b.tangent};
}
template <class A, class B>
SN_HD auto operator*(const Dual<A>& a, const Dual<B>& b) -> Dual<decltype(a.value * b.value)> {
  return {a.value * b.value, a.tangent * b.value + a.value * b.tangent};
}
template <class A, class B, if_not_dual<B> = 0>
SN_HD auto operator+(const Dual<A>& a, const B& b) -> Dual<decltype(a.value + b)> {
  return {a.value + b, a.tangent};
}
template <class A, class B, if_not_dual<B> = 0>
SN_HD auto operator-(const Dual<A>& a, const B& b) -> Dual<decltype(a.value - b)> {
  return {a.value - b, a.tangent};
}
template <class A, class B, if_not_dual<B> = 0>
SN_HD auto operator*(const Dual<A>& a, const B& b) -> Dual<decltype(a.value * b)> {
  return {a.value * b, a.tangent * b};
}
template <class A, class B, if_not_dual<A> = 0>
SN_HD auto operator*(const A& a, const Dual<B>& b) -> Dual<decltype(a * b.value)> {
  return {a * b.value, a * b.tangent};
}
template <class T>
SN_HD Dual<T> operator-(const Dual<T>& a) {
  return {-a.value, -a.tangent};
}
template <class A, class B>
SN_HD Dual<A>& operator+=(Dual<A>& a, const B& b) {
  a = a + b;
  return a;
}

// For a number or a SIMD vector V: its element, and the integers of the same width.
template <class V, bool kScalar = std::is_floating_point<V>::value>
struct Bits {
  using Element = V;
  using Integer = std::conditional_t<sizeof(V) == 4, uint32_t, uint64_t>;
};
template <class V>
struct Bits<V, false> {
  using Element = std::remove_cv_t<std::remove_reference_t<decltype(V{}[0])>>;
  using Integer = decltype(V{} < V{});
};
template <class V>
SN_HD typename Bits<V>::Integer bits_of(const V& x) {
  typename Bits<V>::Integer bits;
  __builtin_memcpy(&bits, &x, sizeof(V));
  return bits;
}
template <class V>
SN_HD V from_bits(const typename Bits<V>::Integer& bits) {
  V x;
  __builtin_memcpy(&x, &bits, sizeof(V));
  return x;
}

template <class T, if_not_dual<T> = 0>
SN_HD T reciprocal(const T& x) {
  return typename Bits<T>::Element(1) / x;
}
template <class T>
SN_HD Dual<T> reciprocal(const Dual<T>& x) {
  const T r = reciprocal(x.value);
  return {r, -(x.tangent * r * r)};
}
template <class T, if_not_dual<T> = 0>
SN_HD T reciprocal_sqrt(const T& a) {
  if constexpr (std::is_floating_point<T>::value) {
    return T(1) / std::sqrt(a);
  } else {  // lane by lane
    T out{};
    for (unsigned i = 0; i < sizeof(T) / sizeof(a[0]); ++i) out[i] = 1 / std::sqrt(a[i]);
    return out;
  }
}
template <class T>
SN_HD Dual<T> reciprocal_sqrt(const Dual<T>& a) {
  const T root = reciprocal_sqrt(a.value);
  const T half_cube = root * root * root / 2;
  return {root, -a.tangent * half_cube};
}

// The value of a dual, and a dual of a value and a tangent; numbers have no tangent.
template <class T>
SN_HD const T& value_of(const T& a) {
  return a;
}
template <class T>
SN_HD const T& value_of(const Dual<T>& a) {
  return a.value;
}
template <class S>
using ValueOf = std::decay_t<decltype(value_of(S{}))>;
template <class S, class T>
SN_HD S with_tangent(const T& value, const T& tangent) {
  if constexpr (is_dual<S>::value) {
    return {value, tangent};
  } else {
    return value;
  }
}

// value[i] and tangent[i] (null: 0) as one number.
template <class S, class T>
SN_HD S number_at(const T* value, const T* tangent, int64_t i) {
  if constexpr (is_dual<S>::value) {
    return {value[i], tangent ? tangent[i] : T(0)};
  } else {
    return value[i];
  }
}

// sum += a * b, product by product: that is one operation less for duals, whose product would be added up first.
template <class S, class A, class B>
SN_HD void add_product(S& sum, const A& a, const B& b) {
  if constexpr (is_dual<A>::value && is_dual<B>::value) {
    sum.value += a.value * b.value;
    sum.tangent += a.tangent * b.value;
    sum.tangent += a.value * b.tangent;
  } else {
    sum += a * b;
  }
}

// The part of a quantity that leaves a kernel: numbers themselves, the tangent of duals.
template <class T, if_not_dual<T> = 0>
SN_HD const T& output_of(const T& a) {
  return a;
}
template <class T>
SN_HD const T& output_of(const Dual<T>& a) {
  return a.tangent;
}

// sum += output_of(a * b), without computing what is not asked for.
template <class V, class A, class B, if_not_dual<A> = 0, if_not_dual<B> = 0>
SN_HD void add_output(V& sum, const A& a, const B& b) {
  sum += a * b;
}
template <class V, class A, class B>
SN_HD void add_output(V& sum, const Dual<A>& a, const Dual<B>& b) {
  sum += a.tangent * b.value;
  sum += a.value * b.tangent;
}
template <class V, class A, class B, if_not_dual<B> = 0>
SN_HD void add_output(V& sum, const Dual<A>& a, const B& b) {
  sum += a.tangent * b;
}

}  // namespace spherenet
