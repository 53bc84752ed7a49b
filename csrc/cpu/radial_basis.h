// The radial basis over a chunk of edges, for one instruction set: lanes over edges.
#pragma once
#include "../math/radial_basis.h"
#include "kernel.h"

namespace spherenet {
namespace SN_ISA {

template <class T, Pass kPass>
class RadialBasisRun {
  static constexpr bool kValue = kPass != Pass::kBackward, kVjp = kPass != Pass::kForward;
  static constexpr int W = kLanes<T>;
  using V = Lanes<T, W>;
  using S = std::conditional_t<kPass == Pass::kDoubleBackward, Dual<V>, V>;

 public:
  explicit RadialBasisRun(const RadialBasisCall<T>& call)
      : call_(call), basis_(call.cutoff, call.envelope_exponent), K_(call.num_radial), L_(call.num_spherical) {
    for (int n = 0; n < K_; ++n) {
      sines_[n] = basis_.sine_factor(call.frequency[n], call.frequency_tangent ? call.frequency_tangent[n] : T(0));
      grad_frequency_[n] = V{};
    }
    for (int i = 0; i < L_ * K_; ++i) bessels_[i] = basis_.bessel_factor(call.roots[i], call.scale[i]);
  }

  void run(int64_t chunk) {
    const int64_t begin = chunk * kRadialBasisChunk;
    const int64_t end = begin + kRadialBasisChunk < call_.num_edges ? begin + kRadialBasisChunk : call_.num_edges;
    for (int64_t first = begin; first < end; first += W) edges(first, int(end - first < W ? end - first : W));
    if constexpr (kVjp)
      for (int n = 0; n < K_; ++n) {
        T sum = 0;
        for (int i = 0; i < W; ++i) sum += grad_frequency_[n][i];
        call_.grad_frequency[chunk * K_ + n] = sum;
      }
  }

 private:
  void edges(int64_t first, int count) {
    const EdgeLength<S> edge = basis_.edge(distances(first, count));
    V grad_distance{};
    if constexpr (kVjp) {
      gather(call_.grad_bessel + first * K_, K_, bessel_, count);
      gather(call_.grad_radial + first * L_ * K_, L_ * K_, radial_, count);
    }
    for (int n = 0; n < K_; ++n) {
      const EnvelopedSine<S> sine = basis_.sine(edge, sines_[n]);
      if constexpr (kVjp) {
        add_output(grad_distance, sine.by_distance, bessel_[n]);
        add_output(grad_frequency_[n], sine.by_frequency, bessel_[n]);
      }
      if constexpr (kValue) bessel_[n] = output_of(sine.value);
    }
    for (int l = 0; l < L_; ++l)
      with_order(l, [&](auto order) {
        for (int i = l * K_; i < (l + 1) * K_; ++i) {
          const RadialFunction<S> function = basis_.template radial<order.value>(edge, bessels_[i]);
          if constexpr (kVjp) add_output(grad_distance, function.by_distance, radial_[i]);
          if constexpr (kValue) radial_[i] = output_of(function.value);
        }
      });
    if constexpr (kValue) {
      scatter(bessel_, K_, call_.bessel + first * K_, count);
      scatter(radial_, L_ * K_, call_.radial + first * L_ * K_, count);
    }
    if constexpr (kVjp) store_lanes<T>(grad_distance, call_.grad_distance + first, count);
  }

  // Lanes past the last edge hold the cutoff, where everything is finite; their gradients are 0.
  S distances(int64_t first, int count) const {
    V value = V{} + T(call_.cutoff), tangent = V{};
    std::memcpy(&value, call_.distance + first, count * sizeof(T));
    if (call_.distance_tangent) std::memcpy(&tangent, call_.distance_tangent + first, count * sizeof(T));
    return with_tangent<S>(value, tangent);
  }

  static void scatter(const V* lanes, int size, T* rows, int count) {
    for (int e = 0; e < count; ++e)
      for (int i = 0; i < size; ++i) rows[e * size + i] = lanes[i][e];
  }
  static void gather(const T* rows, int size, V* lanes, int count) {
    for (int i = 0; i < size; ++i) lanes[i] = V{};
    for (int e = 0; e < count; ++e)
      for (int i = 0; i < size; ++i) lanes[i][e] = rows[e * size + i];
  }

  const RadialBasisCall<T>& call_;
  const RadialBasis<T> basis_;
  const int K_, L_;
  SineFactor<T> sines_[kMaxRadial];
  BesselFactor<T> bessels_[kMaxSpherical * kMaxRadial];
  V bessel_[kMaxRadial], radial_[kMaxSpherical * kMaxRadial];  // of some edges: cotangents, then values in their place
  V grad_frequency_[kMaxRadial];
};

template <class T>
void radial_basis(const RadialBasisCall<T>& call, Pass pass, int64_t chunk) {
  switch (pass) {
    case Pass::kForward:
      return RadialBasisRun<T, Pass::kForward>(call).run(chunk);
    case Pass::kBackward:
      return RadialBasisRun<T, Pass::kBackward>(call).run(chunk);
    case Pass::kDoubleBackward:
      return RadialBasisRun<T, Pass::kDoubleBackward>(call).run(chunk);
  }
}

}  // namespace SN_ISA
}  // namespace spherenet

SN_KERNEL(void, radial_basis, RadialBasisCall, (Pass pass, int64_t chunk), (pass, chunk))
