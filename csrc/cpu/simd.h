// SIMD vectors as numbers, so that the templates of csrc/math/ run on a whole register of edges or channels at once.
//
// A file that includes this picks its instruction set with SN_ISA and a target pragma *after* the standard headers (see
// avx512.cpp); everything here lives in a namespace of that name, so that no function compiled for a wide
// register can be linked into a path that a narrower processor takes.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#include "../math/dual.h"

#ifndef SN_ISA
#define SN_ISA baseline
#define SN_VECTOR_BYTES 16
#endif

namespace spherenet {
namespace SN_ISA {

template <class T>
constexpr int kLanes = SN_VECTOR_BYTES / int(sizeof(T));

template <class T, int kWidth>
struct Register {
  typedef T type __attribute__((vector_size(kWidth * sizeof(T)), may_alias));
};

// More numbers than a register holds. As one vector GCC would broadcast a number to them through memory, number by
// number.
template <class T, int kWidth>
struct Registers {
  static constexpr int kCount = kWidth / kLanes<T>;
  typename Register<T, kLanes<T>>::type part[kCount];

  SN_HD T& operator[](int i) { return reinterpret_cast<T*>(part)[i]; }
  SN_HD const T& operator[](int i) const { return reinterpret_cast<const T*>(part)[i]; }
  SN_HD Registers& operator+=(const Registers& b) { return *this = *this + b; }
  friend SN_HD Registers operator+(Registers a, const Registers& b) {
    for (int k = 0; k < kCount; ++k) a.part[k] += b.part[k];
    return a;
  }
  friend SN_HD Registers operator*(Registers a, const Registers& b) {
    for (int k = 0; k < kCount; ++k) a.part[k] *= b.part[k];
    return a;
  }
  friend SN_HD Registers operator*(Registers a, const T& b) {
    for (int k = 0; k < kCount; ++k) a.part[k] *= b;
    return a;
  }
};

template <class T, int kWidth>
struct LanesOf : std::conditional<(kWidth > kLanes<T>), Registers<T, kWidth>, typename Register<T, kWidth>::type> {};

// kWidth numbers T; plain arithmetic operators work, a scalar operand of type T is broadcast.
template <class T, int kWidth>
using Lanes = typename LanesOf<T, kWidth>::type;

// The first `count` of a vector's numbers. A memcpy of unknown length is a function call; whole vectors, the usual
// case, avoid it.
template <class T>
SN_HD Lanes<T, kLanes<T>> load_lanes(const T* from, int count) {
  Lanes<T, kLanes<T>> lanes{};
  if (count >= kLanes<T>) {
    std::memcpy(&lanes, from, sizeof(lanes));
  } else {
    std::memcpy(&lanes, from, sizeof(T) * count);
  }
  return lanes;
}
template <class T>
SN_HD void store_lanes(const Lanes<T, kLanes<T>>& lanes, T* to, int count) {
  if (count >= kLanes<T>) {
    std::memcpy(to, &lanes, sizeof(lanes));
  } else {
    std::memcpy(to, &lanes, sizeof(T) * count);
  }
}

// `count` elements of arrays at `first`: a whole vector, unless it is the last.
template <class T, bool kWhole>
struct Stretch {
  using V = Lanes<T, kLanes<T>>;
  int64_t first;
  int count;
  V load(const T* from) const {
    V lanes{};
    std::memcpy(&lanes, from + first, kWhole ? sizeof(V) : sizeof(T) * count);
    return lanes;
  }
  V load_or_zero(const T* from) const { return from ? load(from) : V{}; }
  void store(T* to, const V& lanes) const { std::memcpy(to + first, &lanes, kWhole ? sizeof(V) : sizeof(T) * count); }
  // Adds to what `to` holds, or writes where that is nothing yet.
  void put(T* to, bool holds, const V& lanes) const { store(to, holds ? V(load(to) + lanes) : lanes); }
};

// f holds copies: what it refers to would be read again for every vector, as the compiler sees it written to.
template <class T, class F>
void over_elements(int64_t begin, int64_t end, F f) {
  constexpr int W = kLanes<T>;
  int64_t first = begin;
#pragma GCC unroll 2
  for (; first + W <= end; first += W) f(Stretch<T, true>{first, W});
  if (first < end) f(Stretch<T, false>{first, int(end - first)});
}

}  // namespace SN_ISA

}  // namespace spherenet
