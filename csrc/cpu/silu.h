// The activation over a range of elements, for one instruction set.
#pragma once
#include "../math/silu.h"
#include "kernel.h"

namespace spherenet {
namespace SN_ISA {

template <class T, bool kDual, bool kVjp>
void silu_range(const SiluCall<T>& call, int64_t begin, int64_t end) {
  using V = Lanes<T, kLanes<T>>;
  over_elements<T>(begin, end, [call](const auto& e) {
    const V x = e.load(call.x);
    if constexpr (kDual) {
      const Dual<V> both{x, e.load(call.tangent)};
      e.store(call.y, silu(both).tangent);
      e.store(call.grad_x, silu_vjp(both, e.load(call.grad)).tangent);
    } else if constexpr (kVjp) {
      e.store(call.grad_x, silu_vjp(x, e.load(call.grad)));
    } else {
      e.store(call.y, silu(x));
    }
  });
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
