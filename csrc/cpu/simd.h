// SIMD vectors as numbers, so that the templates of csrc/math/ run on a whole register of edges or channels at once.
//
// A file that includes this picks its instruction set with SN_ISA and a target pragma *after* the standard headers (see
// avx512.cpp); everything here lives in a namespace of that name, so that no function compiled for a wide
// register can be linked into a path that a narrower processor takes.
#pragma once
#include <cmath>

#include "../math/dual.h"

#ifndef SN_ISA
#define SN_ISA baseline
#define SN_VECTOR_BYTES 16
#endif

namespace spherenet {
namespace SN_ISA {

template <class T, int kWidth>
struct LanesOf {
  typedef T type __attribute__((vector_size(kWidth * sizeof(T)), may_alias));
};

// kWidth numbers T; plain arithmetic operators work, a scalar operand of type T is broadcast.
template <class T, int kWidth>
using Lanes = typename LanesOf<T, kWidth>::type;

template <class T>
constexpr int kLanes = SN_VECTOR_BYTES / int(sizeof(T));

}  // namespace SN_ISA

}  // namespace spherenet
