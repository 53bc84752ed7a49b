// The number types of one pass of a kernel, and access to single lanes of them.
#pragma once
#include <cstdint>
#include <type_traits>

#include "simd.h"

namespace spherenet {
namespace SN_ISA {

constexpr int kRow = 8;  // basis channels (P, Q) are handled in rows of eight

// The number types of one pass: T, or Dual<T> when derivatives of the vector-Jacobian product are wanted.
template <class T, bool kDual>
struct Numbers {
  using V = Lanes<T, kLanes<T>>;  // over channels, or over the edges out of a center
  using V8 = Lanes<T, kRow>;      // over basis channels
  using N = std::conditional_t<kDual, Dual<T>, T>;
  using S = std::conditional_t<kDual, Dual<V>, V>;
  using S8 = std::conditional_t<kDual, Dual<V8>, V8>;

  // Lane i of a vector (of W lanes) of numbers.
  template <class Vector>
  static SN_HD N lane(const Vector& v, int i) {
    const T* first = reinterpret_cast<const T*>(&v);
    if constexpr (kDual) {
      return {first[i], first[sizeof(Vector) / (2 * sizeof(T)) + i]};
    } else {
      return first[i];
    }
  }
  // The first `count` lanes from an array and its tangent (null: 0), and 0 in the others.
  static SN_HD void load(S& to, const T* value, const T* tangent, int count) {
    const auto part = [&](const T* from) {
      return count == kLanes<T> ? Stretch<T, true>{0, count}.load_or_zero(from)
                                : Stretch<T, false>{0, count}.load_or_zero(from);
    };
    if constexpr (kDual) {
      to = {part(value), part(tangent)};
    } else {
      to = part(value);
    }
  }
  template <class Vector>
  static SN_HD void set_lane(Vector& v, int i, const N& number) {
    T* first = reinterpret_cast<T*>(&v);
    if constexpr (kDual) {
      first[i] = number.value;
      first[sizeof(Vector) / (2 * sizeof(T)) + i] = number.tangent;
    } else {
      first[i] = number;
    }
  }
};

// Of a vector that serves several operations: GCC would read it from memory again for each of them.
template <class V>
SN_HD void keep_in_register(V& vector) {
  if constexpr (is_dual<V>::value) {
    keep_in_register(vector.value);
    keep_in_register(vector.tangent);
  } else {
#if defined(__x86_64__) && defined(__GNUC__)
    asm("" : "+v"(vector));
#endif
  }
}

// Rows one after the other in memory as one vector `Wide`. What is no vector is not copied as bytes: GCC does that in
// smaller pieces, and to read these whole again stalls.
template <class Wide, class Row>
SN_HD Wide rows_at(const Row* from) {
  if constexpr (std::is_same<Wide, Row>::value) {
    return *from;
  } else {
    Wide rows;
    std::memcpy(&rows, from, sizeof(rows));
    return rows;
  }
}
template <class Wide, class Row>
SN_HD void put_rows(const Wide& rows, Row* to) {
  if constexpr (std::is_same<Wide, Row>::value) {
    *to = rows;
  } else {
    std::memcpy(to, &rows, sizeof(rows));
  }
}

}  // namespace SN_ISA
}  // namespace spherenet
