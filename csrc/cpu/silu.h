// The activation over a range of elements, for one instruction set.
#pragma once
#include <cstring>

#include "../math/silu.h"
#include "kernel.h"

namespace spherenet {
namespace SN_ISA {

// One vector of elements, or the last count of them.
template <class T, bool kDual, bool kVjp>
SN_HD void silu_lanes(const SiluCall<T>& call, int64_t first, int count) {
  using V = Lanes<T, kLanes<T>>;
  const auto load = [&](const T* from) {
    V out{};
    std::memcpy(&out, from + first, sizeof(T) * count);
    return out;
  };
  const auto store = [&](T* to, const V& lanes) { std::memcpy(to + first, &lanes, sizeof(T) * count); };
  const V x = load(call.x);
  if constexpr (kDual) {
    const Dual<V> both{x, load(call.tangent)};
    const V grad = load(call.grad);
    store(call.y, silu(both).tangent);
    store(call.grad_x, silu_vjp(both, grad).tangent);
  } else if constexpr (kVjp) {
    store(call.grad_x, silu_vjp(x, load(call.grad)));
  } else {
    store(call.y, silu(x));
  }
}

template <class T, bool kDual, bool kVjp>
void silu_range(const SiluCall<T>& call, int64_t begin, int64_t end) {
  constexpr int W = kLanes<T>;
  int64_t first = begin;
  for (; first + W <= end; first += W) silu_lanes<T, kDual, kVjp>(call, first, W);
  if (first < end) silu_lanes<T, kDual, kVjp>(call, first, int(end - first));
}

template <class T>
void silu(const SiluCall<T>& call, Pass pass, int64_t begin, int64_t end) {
  switch (pass) {
    case Pass::kForward:
      return silu_range<T, false, false>(call, begin, end);
    case Pass::kBackward:
      return silu_range<T, false, true>(call, begin, end);
    case Pass::kDoubleBackward:
      return silu_range<T, true, true>(call, begin, end);
  }
}

}  // namespace SN_ISA
}  // namespace spherenet

SN_KERNEL(void, silu, SiluCall, (Pass pass, int64_t begin, int64_t end), (pass, begin, end))
