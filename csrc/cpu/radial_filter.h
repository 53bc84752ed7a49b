// Messages times a linear function of the distance basis, over a chunk of edges, for one instruction set: lanes over
// channels. The filter itself is never stored.
#pragma once
#include <cstring>

#include "../math/radial_filter.h"
#include "dual_simd.h"
#include "kernel.h"
#include "scratch.h"

namespace spherenet {
namespace SN_ISA {

template <class T, Pass kPass>
class RadialFilterRun {
  static constexpr bool kDual = kPass == Pass::kDoubleBackward, kVjp = kPass != Pass::kForward;
  static constexpr int W = kLanes<T>;
  static constexpr int kEdges = 4;  // share one load and store of the weight's gradient
  using Num = Numbers<T, kDual>;
  using V = typename Num::V;
  using N = typename Num::N;
  using S = typename Num::S;

  const RadialFilterCall<T>& call_;
  const int radial_, blocks_;  // of W channels
  ScratchMemory memory_;
  S* weight_;       // [K, blocks]
  S* grad_filter_;  // [kEdges, blocks]
  V* grad_weight_;  // [K, blocks]

 public:
  explicit RadialFilterRun(const RadialFilterCall<T>& call)
      : call_(call), radial_(call.num_radial), blocks_((call.channels + W - 1) / W) {
    memory_.build([&](ScratchMemory& memory) {
      weight_ = memory.take<S>(int64_t(radial_) * blocks_);
      grad_filter_ = memory.take<S>(int64_t(kEdges) * blocks_);
      grad_weight_ = memory.take<V>(int64_t(radial_) * blocks_);
    });
    for (int k = 0; k < radial_; ++k)
      for (int c = 0; c < blocks_ * W; ++c)
        Num::set_lane(
            weight_[k * blocks_ + c / W], c % W,
            c < call.channels ? number_at<N>(call.weight, call.weight_tangent, int64_t(c) * radial_ + k) : N{});
    for (int i = 0; i < radial_ * blocks_; ++i) grad_weight_[i] = V{};
  }

  void run(int64_t chunk) {
    const int64_t begin = chunk * kRadialFilterChunk;
    const int64_t end = begin + kRadialFilterChunk < call_.num_edges ? begin + kRadialFilterChunk : call_.num_edges;
    for (int64_t first = begin; first < end; first += kEdges)
      edges(first, int(end - first < kEdges ? end - first : kEdges));
    if constexpr (kVjp)
      if (call_.grad_weight) {
        T* to = call_.grad_weight + chunk * call_.channels * radial_;
        for (int c = 0; c < call_.channels; ++c)
          for (int k = 0; k < radial_; ++k) *to++ = grad_weight_[k * blocks_ + c / W][c % W];
      }
  }

 private:
  void edges(int64_t first, int count) {
    N bessel[kEdges][kMaxRadial];
    for (int i = 0; i < count; ++i)
      for (int k = 0; k < radial_; ++k)
        bessel[i][k] = number_at<N>(call_.bessel, call_.bessel_tangent, (first + i) * radial_ + k);
    for (int i = 0; i < count; ++i)
      for (int block = 0; block < blocks_; ++block)
        filter(first + i, block, bessel[i], grad_filter_[i * blocks_ + block]);
    if constexpr (kVjp) {
      if (call_.grad_bessel)
        for (int i = 0; i < count; ++i) bessel_gradient(i, call_.grad_bessel + (first + i) * radial_);
      if (call_.grad_weight)
        for (int k = 0; k < radial_; ++k)
          for (int block = 0; block < blocks_; ++block) {
            V sum = grad_weight_[k * blocks_ + block];
            for (int i = 0; i < count; ++i) add_output(sum, grad_filter_[i * blocks_ + block], bessel[i][k]);
            grad_weight_[k * blocks_ + block] = sum;
          }
    }
  }

  // Everything about one edge and block of channels that needs the filter.
  SN_HD void filter(int64_t edge, int block, const N* bessel, S& grad_filter) const {
    S filter{};
    for (int k = 0; k < radial_; ++k) filter += weight_[k * blocks_ + block] * bessel[k];
    const int64_t offset = edge * call_.channels + block * W;
    const int rest = call_.channels - block * W, lanes = rest < W ? rest : W;
    S x;
    if constexpr (kDual) {
      x = {load_lanes<T>(call_.x + offset, lanes),
           call_.x_tangent ? load_lanes<T>(call_.x_tangent + offset, lanes) : V{}};
    } else {
      x = load_lanes<T>(call_.x + offset, lanes);
    }
    if constexpr (kPass != Pass::kBackward) store_lanes<T>(output_of(x * filter), call_.out + offset, lanes);
    if constexpr (kVjp) {
      const V grad = load_lanes<T>(call_.grad_out + offset, lanes);
      store_lanes<T>(output_of(filter * grad), call_.grad_x + offset, lanes);
      grad_filter = x * grad;
    }
  }

  void bessel_gradient(int i, T* grad_bessel /* [K] */) const {
    for (int k = 0; k < radial_; ++k) {
      V lanes{};
      for (int block = 0; block < blocks_; ++block)
        add_output(lanes, grad_filter_[i * blocks_ + block], weight_[k * blocks_ + block]);
      T sum = 0;
      for (int lane = 0; lane < W; ++lane) sum += lanes[lane];
      grad_bessel[k] = sum;
    }
  }
};

template <class T>
void radial_filter(const RadialFilterCall<T>& call, Pass pass, int64_t chunk) {
  switch (pass) {
    case Pass::kForward:
      return RadialFilterRun<T, Pass::kForward>(call).run(chunk);
    case Pass::kBackward:
      return RadialFilterRun<T, Pass::kBackward>(call).run(chunk);
    case Pass::kDoubleBackward:
      return RadialFilterRun<T, Pass::kDoubleBackward>(call).run(chunk);
  }
}

}  // namespace SN_ISA
}  // namespace spherenet

SN_KERNEL(void, radial_filter, RadialFilterCall, (Pass pass, int64_t chunk), (pass, chunk))
