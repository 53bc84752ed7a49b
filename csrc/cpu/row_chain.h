// Chains of layers over rows, for one instruction set. A tile of rows goes through the whole chain before the next one
// begins, so that what the layers hand on stays in the cache; products and outer sums are those of the two operators.
#pragma once
#include <algorithm>

#include "../math/row_chain.h"
#include "../math/silu.h"
#include "outer_sum.h"
#include "product.h"
#include "scratch.h"

namespace spherenet {
namespace SN_ISA {

// act(h) and its first two derivatives.
template <class V>
struct Activation {
  V value, slope, curvature;
  Activation(bool silu, const V& h) {
    using T = typename Bits<V>::Element;
    if (!silu) {
      value = h;
      slope = V{} + T(1);
      curvature = V{};
      return;
    }
    const Sigmoid<V> at = sigmoid(h);
    const V product = at.value * at.complement;
    value = h * at.value;
    slope = at.value + h * product;
    curvature = product * (h * (at.complement - at.value) + T(2));
  }
};

template <class T>
class RowChain {
 public:
  RowChain(const RowChainCall<T>& call, Pass pass) : call_(call), pass_(pass) {
    const int count = call.num_inputs + call.num_steps;
    memory_.build([&](ScratchMemory& memory) {
      for (T**& list : lists_) list = memory.template take<T*>(count);
      holds_ = memory.template take<bool>(count);
      moves_ = memory.template take<bool>(count);
      int64_t widest = 0;
      for (int v = 0; v < count; ++v) {
        const int64_t size = v < call.num_inputs ? 0 : call.tile_rows * call.values[v].width;
        widest = std::max(widest, size);
        for (int k = 0; k < kLists; ++k) {
          T* piece = memory.template take<T>(uses(k, v) ? size : 0);
          if (lists_[0]) own(k)[v] = piece;
        }
      }
      extra_ = memory.template take<T>(pass == Pass::kDoubleBackward ? widest : 0);
    });
  }

  void part(int64_t part) {
    const int64_t begin = part * call_.part_rows, end = std::min(begin + call_.part_rows, call_.num_rows);
    sums_ = call_.sums + part * call_.sums_size;
    if (pass_ != Pass::kForward) std::fill(sums_, sums_ + call_.sums_size, T(0));
    for (row_ = begin; row_ < end; row_ += call_.tile_rows) {
      rows_ = std::min(call_.tile_rows, end - row_);
      switch (pass_) {
        case Pass::kForward:
          forward();
          break;
        case Pass::kBackward:
          backward();
          break;
        case Pass::kDoubleBackward:
          double_backward();
      }
    }
  }

 private:
  using Step = RowChainStep<T>;
  using V = Lanes<T, kLanes<T>>;

  // For every value of a tile: itself, its cotangent, its tangent, what the double backward finds for h, h, and the
  // slope of the activation, which may be null. Either in memory of this object (its place is kept in the second half
  // of the lists) or in the tensors.
  enum List { kValue, kGrad, kTangent, kGradH, kH, kSlope, kLists };
  bool uses(int list, int v) const {
    if (list == kH) return finds_h();
    if (list == kSlope) return keeps_slope(v);
    if (list == kValue) return pass_ == Pass::kForward ? !value(v).out : finds_value(v);
    return pass_ == Pass::kDoubleBackward || (list == kGrad && pass_ == Pass::kBackward);
  }
  bool finds_value(int v) const { return !value(v).known && (value(v).needed || finds_h()); }
  // Where a backward pass finds the value it finds the slope of the activation with it, which costs little more.
  bool keeps_slope(int v) const {
    return pass_ == Pass::kBackward && finds_value(v) && step(v).silu && step(v).combine != Combine::kMultiply;
  }
  bool finds_h() const { return pass_ == Pass::kBackward && call_.num_steps && !call_.steps[0].h; }
  T** own(int list) { return lists_[kLists + list]; }
  T** at(int list) { return lists_[list]; }

  const RowChainValue<T>& value(int v) const { return call_.values[v]; }
  const Step& step(int v) const { return call_.steps[v - call_.num_inputs]; }
  int count() const { return call_.num_inputs + call_.num_steps; }
  int64_t size(int v) const { return rows_ * value(v).width; }
  template <class P>
  P* rows_of(P* tensor, int v) const {
    return tensor ? tensor + row_ * value(v).width : nullptr;
  }

  void multiply(ProductCall<T> product, const T* x, T* out, bool accumulate) const {
    product.x = x;
    product.out = out;
    product.accumulate = accumulate;
    spherenet::SN_ISA::product(product, 0, rows_);
  }

  // The value of a step from h, which may be the same array: act(h), met by `other`. With it the slope of act, if it is
  // wanted: the same loop, so that values have the same bits with and without.
  void find_value(const Step& s, int v, const T* h, T* out, T* slope = nullptr) {
    const T* other = s.other < 0 ? nullptr : at(kValue)[s.other];
    over_elements<T>(0, size(v), [=, with_silu = s.silu, combine = s.combine](const auto& e) {
      V result = e.load(h);
      if (with_silu) {
        const Activation<V> act(true, result);
        if (slope) e.store(slope, act.slope);
        result = act.value;
      }
      if (combine == Combine::kAdd) result += e.load(other);
      if (combine == Combine::kMultiply) result *= e.load(other);
      e.store(out, result);
    });
  }

  void forward() {
    for (int v = 0; v < call_.num_inputs; ++v) at(kValue)[v] = const_cast<T*>(rows_of(value(v).known, v));
    for (int v = call_.num_inputs; v < count(); ++v) {
      const Step& s = step(v);
      T* out = at(kValue)[v] = value(v).out ? rows_of(value(v).out, v) : own(kValue)[v];
      T* h = s.h ? rows_of(s.h, v) : out;
      multiply(s.product, at(kValue)[s.source], h, false);
      find_value(s, v, h, out);
    }
  }

  // h, and the values that are known or needed.
  void find_values() {
    for (int v = 0; v < count(); ++v) {
      at(kSlope)[v] = keeps_slope(v) ? own(kSlope)[v] : nullptr;
      at(kValue)[v] = const_cast<T*>(rows_of(value(v).known, v));
      if (v < call_.num_inputs) continue;
      const Step& s = step(v);
      at(kH)[v] = finds_h() ? own(kH)[v] : rows_of(s.h, v);
      if (finds_h()) multiply(s.product, at(kValue)[s.source], at(kH)[v], false);
      if (!finds_value(v)) continue;
      at(kValue)[v] = own(kValue)[v];
      find_value(s, v, at(kH)[v], at(kValue)[v], at(kSlope)[v]);
    }
  }

  void add_weight_gradients(const Step& s, int v, const T* grad_h, const T* source) {
    const int64_t N = value(v).width, K = value(s.source).width;
    if (s.weight_at >= 0)
      spherenet::SN_ISA::outer_sum(OuterSumCall<T>{rows_, N, K, grad_h, source, sums_ + s.weight_at, true}, 0, N);
  }
  void add_bias_gradients(const Step& s, int v, const T* grad_h) {
    if (s.bias_at < 0) return;
    T* sum = sums_ + s.bias_at;
    for (int64_t r = 0; r < rows_; ++r, grad_h += value(v).width)
      over_elements<T>(0, value(v).width, [=](const auto& e) { e.put(sum, true, e.load(grad_h)); });
  }

  // What inputs have for a gradient is where their cotangents are summed; it starts with nothing.
  void start_gradients() {
    for (int v = 0; v < count(); ++v) {
      at(kGrad)[v] = v < call_.num_inputs ? rows_of(value(v).grad_in, v) : own(kGrad)[v];
      holds_[v] = false;
    }
  }
  void end_gradients() {
    for (int v = 0; v < call_.num_inputs; ++v)
      if (at(kGrad)[v] && !holds_[v]) std::fill(at(kGrad)[v], at(kGrad)[v] + size(v), T(0));
  }

  void backward() {
    find_values();
    start_gradients();
    for (int v = call_.num_inputs; v < count(); ++v) {
      const T* given = rows_of(value(v).grad, v);
      if (given) std::copy(given, given + size(v), at(kGrad)[v]);
      holds_[v] = given;
    }
    for (int v = count() - 1; v >= call_.num_inputs; --v) {
      const Step& s = step(v);
      if (!holds_[v] && !s.grad_h) continue;
      T* grad = at(kGrad)[v];
      if (!holds_[v]) std::fill(grad, grad + size(v), T(0));
      back_through_activation(s, v, grad, rows_of(s.grad_value, v), rows_of(s.grad_h, v), grad);
      add_weight_gradients(s, v, grad, at(kValue)[s.source]);
      add_bias_gradients(s, v, grad);
      if (T* to = at(kGrad)[s.source]) {
        multiply(s.back_product, grad, to, holds_[s.source]);
        holds_[s.source] = true;
      }
    }
    end_gradients();
  }

  // From the cotangent of a value to those of h, added to `more`, and of `other`. Arrays may be the same.
  void back_through_activation(const Step& s, int v, const T* grad, T* keep, const T* more, T* grad_h) {
    const T* h = at(kH)[v];
    const T* factor = s.combine == Combine::kMultiply ? at(kValue)[s.other] : nullptr;
    T* to = s.other < 0 ? nullptr : at(kGrad)[s.other];
    const bool holds = to && holds_[s.other];
    const T* slope = at(kSlope)[v];
    over_elements<T>(0, size(v), [=, with_silu = s.silu](const auto& e) {
      const V of_value = e.load(grad);
      if (keep) e.store(keep, of_value);
      V of_h = of_value, of_other = of_value;
      if (slope) {
        of_h *= e.load(slope);
      } else {
        const Activation<V> act(with_silu, e.load(h));
        of_h *= act.slope;
        if (factor) of_other *= act.value;
      }
      if (factor) of_h *= e.load(factor);
      if (to) e.put(to, holds, of_other);
      if (more) of_h += e.load(more);
      e.store(grad_h, of_h);
    });
    if (to) holds_[s.other] = true;
  }

  // On the way forward the tangents of all values, and with them the gradients for the cotangents, the weights and h.
  // A factor gets a gradient, too, which then goes back through the operations that are no products.
  void double_backward() {
    find_values();
    start_gradients();
    for (int v = 0; v < call_.num_inputs; ++v) {
      at(kTangent)[v] = const_cast<T*>(rows_of(value(v).grad, v));
      moves_[v] = at(kTangent)[v];
    }
    for (int v = call_.num_inputs; v < count(); ++v) tangents(step(v), v);
    for (int v = count() - 1; v >= call_.num_inputs; --v)
      if (holds_[v]) back_through_activation(step(v), v, at(kGrad)[v], nullptr, at(kGradH)[v], at(kGradH)[v]);
    end_gradients();
  }

  void tangents(const Step& s, int v) {
    T* tangent = at(kTangent)[v] = value(v).out ? rows_of(value(v).out, v) : own(kTangent)[v];
    T* grad_h = at(kGradH)[v] = rows_of(s.grad_h_out, v);
    const bool of_source = moves_[s.source], of_other = s.other >= 0 && moves_[s.other];
    moves_[v] = of_source || of_other;
    if (!moves_[v]) {
      std::fill(tangent, tangent + size(v), T(0));
      std::fill(grad_h, grad_h + size(v), T(0));
      return;
    }
    if (of_source) {
      ProductCall<T> linear = s.product;
      linear.bias = nullptr;
      multiply(linear, at(kTangent)[s.source], tangent, false);
    }
    const T *h = at(kH)[v], *grad_value = rows_of(s.grad_value, v);
    const T* other_tangent = of_other ? at(kTangent)[s.other] : nullptr;
    const T* factor = s.combine == Combine::kMultiply ? at(kValue)[s.other] : nullptr;
    T* to = factor && of_source && grad_value ? at(kGrad)[s.other] : nullptr;
    const bool holds = to && holds_[s.other];
    over_elements<T>(0, size(v), [=, with_silu = s.silu, extra = extra_](const auto& e) {
      const V of_value = e.load_or_zero(grad_value), t = e.load_or_zero(of_source ? tangent : nullptr);
      const V t_other = e.load_or_zero(other_tangent);
      const Activation<V> act(with_silu, e.load(h));
      V result = act.slope * t, second = of_value * act.curvature * t, first = of_value * act.slope;
      if (to) e.put(to, holds, first * t);
      if (factor) {
        const V by = e.load(factor);
        result = result * by + act.value * t_other;
        second = second * by + first * t_other;
        first *= by;
      } else {
        result += t_other;
      }
      e.store(tangent, result);
      e.store(grad_h, second);
      e.store(extra, first);
    });
    if (to) holds_[s.other] = true;
    if (of_source && grad_value) add_weight_gradients(s, v, extra_, at(kTangent)[s.source]);
  }

  const RowChainCall<T>& call_;
  const Pass pass_;
  ScratchMemory memory_;
  T** lists_[2 * kLists] = {};
  bool *holds_ = nullptr, *moves_ = nullptr;  // which cotangents, which tangents there are so far
  T* extra_ = nullptr;                        // of one step
  T* sums_ = nullptr;
  int64_t row_ = 0, rows_ = 0;  // of the tile
};

template <class T>
void row_chain(const RowChainCall<T>& call, Pass pass, int64_t begin, int64_t end) {
  RowChain<T> chain(call, pass);
  for (int64_t part = begin; part < end; ++part) chain.part(part);
}

}  // namespace SN_ISA
}  // namespace spherenet

SN_KERNEL(void, row_chain, RowChainCall, (Pass pass, int64_t begin, int64_t end), (pass, begin, end))
