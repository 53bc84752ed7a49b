// The radial basis over a chunk of edges, for one instruction set: lanes over edges.
#pragma once
#include "../math/radial_basis.h"
#include "kernel.h"

namespace spherenet {
namespace SN_ISA {

template <class T, bool kDual, bool kVjp>
class RadialBasisRun {
  static constexpr int W = kLanes<double>;
  using V = Lanes<double, W>;
  using S = std::conditional_t<kDual, Dual<V>, V>;
  using N = std::conditional_t<kDual, Dual<double>, double>;

 public:
  static void run(const RadialBasisCall<T>& call, int64_t chunk) {
    const RadialBasis basis{call.num_spherical,           call.num_radial, call.cutoff,
                            {call.envelope_exponent + 1}, call.roots,      call.scale};
    const int K = call.num_radial, LK = call.num_spherical * K;
    N frequency[kMaxRadial];
    S grad_frequency[kMaxRadial];
    for (int n = 0; n < K; ++n) {
      grad_frequency[n] = S{};
      if constexpr (kDual) {
        frequency[n] = {double(call.frequency[n]), call.frequency_tangent ? double(call.frequency_tangent[n]) : 0};
      } else {
        frequency[n] = call.frequency[n];
      }
    }
    const int64_t begin = chunk * kRadialBasisChunk;
    const int64_t end = begin + kRadialBasisChunk < call.num_edges ? begin + kRadialBasisChunk : call.num_edges;
    for (int64_t first = begin; first < end; first += W) {
      const int count = int(end - first < W ? end - first : W);
      const S distance = distances(call, first, count);
      if (call.bessel) {
        S bessel[kMaxRadial], radial[kMaxSpherical * kMaxRadial];
        basis.value(distance, frequency, bessel, radial);
        scatter(bessel, K, call.bessel + first * K, count);
        scatter(radial, LK, call.radial + first * LK, count);
      }
      if constexpr (kVjp) {
        V grad_bessel[kMaxRadial], grad_radial[kMaxSpherical * kMaxRadial];
        gather(call.grad_bessel + first * K, K, grad_bessel, count);
        gather(call.grad_radial + first * LK, LK, grad_radial, count);
        const S grad = basis.vjp(distance, frequency, grad_bessel, grad_radial, grad_frequency);
        for (int i = 0; i < count; ++i) call.grad_distance[first + i] = T(output_of(grad)[i]);
      }
    }
    if constexpr (kVjp)
      for (int n = 0; n < K; ++n) {
        double sum = 0;
        for (int i = 0; i < W; ++i) sum += output_of(grad_frequency[n])[i];
        call.grad_frequency[chunk * K + n] = T(sum);
      }
  }

 private:
  // Lanes past the last edge hold the cutoff, where everything is finite; their gradients are 0.
  static S distances(const RadialBasisCall<T>& call, int64_t first, int count) {
    V value = V{} + call.cutoff, tangent = V{};
    for (int i = 0; i < count; ++i) {
      value[i] = call.distance[first + i];
      if (call.distance_tangent) tangent[i] = call.distance_tangent[first + i];
    }
    if constexpr (kDual) {
      return {value, tangent};
    } else {
      return value;
    }
  }

  static void scatter(const S* lanes, int size, T* rows, int count) {
    for (int e = 0; e < count; ++e)
      for (int i = 0; i < size; ++i) rows[e * size + i] = T(output_of(lanes[i])[e]);
  }
  static void gather(const T* rows, int size, V* lanes, int count) {
    for (int i = 0; i < size; ++i) lanes[i] = V{};
    for (int e = 0; e < count; ++e)
      for (int i = 0; i < size; ++i) lanes[i][e] = rows[e * size + i];
  }
};

template <class T>
void radial_basis(const RadialBasisCall<T>& call, Pass pass, int64_t chunk) {
  switch (pass) {
    case Pass::kForward:
      return RadialBasisRun<T, false, false>::run(call, chunk);
    case Pass::kBackward:
      return RadialBasisRun<T, false, true>::run(call, chunk);
    case Pass::kDoubleBackward:
      return RadialBasisRun<T, true, true>::run(call, chunk);
  }
}

}  // namespace SN_ISA
}  // namespace spherenet

SN_KERNEL(void, radial_basis, RadialBasisCall, (Pass pass, int64_t chunk), (pass, chunk))
