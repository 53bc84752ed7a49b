// A gated sum for one instruction set: prepared weights, and the loop over the tiles of a chunk.
#pragma once
#include "gated_sum_tile_vjp.h"
#include "kernel.h"

namespace spherenet {
namespace SN_ISA {

template <class T, Pass kPass, bool kDualWeights = false>
class GatedSumRun {
  static constexpr bool kDual = kPass == Pass::kDoubleBackward;

 public:
  explicit GatedSumRun(const GatedSumCall<T>& call)
      : call_(call), chunks_(gated_sum_chunks(call.graph)), weights_(call_) {
    const TileGraph& graph = call_.graph;
    for (int64_t j = 0; j < graph.num_nodes; ++j) {
      const int64_t in = graph.in_ptr[j + 1] - graph.in_ptr[j], out = graph.out_ptr[j + 1] - graph.out_ptr[j];
      if (in > most_.in) most_.in = in;
      if (out > most_.out) most_.out = out;
    }
  }

  // The usual cases have tiles of their own, in float alone and without tangents of weights: each takes its time to
  // compile.
  void chunk(int64_t index) const {
    if constexpr (std::is_same<T, float>::value && !kDualWeights) {
      const int angle = weights_.angle.groups, torsion = weights_.torsion.groups;
      if (angle == 1 && torsion == 1) return tiles<Filters::kAngleAndTorsion>(index);
      if (angle == 1 && torsion == 0) return tiles<Filters::kAngle>(index);
    }
    tiles<Filters::kAny>(index);
  }

 private:
  // Tile j belongs to the chunk that its first unit of work (triplets and atoms before it) falls into.
  template <Filters kFilters>
  void tiles(int64_t index) const {
    using Tile = std::conditional_t<kPass == Pass::kForward, GatedSumTile<T, false, false, kFilters>,
                                    GatedSumTileVjp<T, kDual, kFilters, kDualWeights>>;
    Tile tile(call_, weights_, table_, most_);
    for (int64_t j = first_tile(index), end = first_tile(index + 1); j < end; ++j) tile.run(j);
    if constexpr (kPass != Pass::kForward)
      if (call_.grads.weights) tile.store_weight_gradients(call_.grads.weights + index * call_.shape.weights_size());
  }

  int64_t first_tile(int64_t index) const {
    int64_t low = 0, high = call_.graph.num_nodes;
    while (low < high) {
      const int64_t middle = (low + high) / 2;
      const int64_t work = call_.graph.triplet_ptr[middle] + middle;
      if (work * chunks_.count < index * chunks_.total) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low;
  }

  const GatedSumCall<T> call_;
  const Chunks chunks_;
  const PackedWeights<T, kDualWeights> weights_;
  const HarmonicTable<T> table_;
  TileLimits most_;
};

template <class T, Pass kPass, bool kDualWeights = false>
GatedSumHandle make_gated_sum(const GatedSumCall<T>& call) {
  using Run = GatedSumRun<T, kPass, kDualWeights>;
  return {new Run(call), [](const void* state, int64_t chunk) { static_cast<const Run*>(state)->chunk(chunk); },
          [](void* state) { delete static_cast<Run*>(state); }};
}

template <class T>
GatedSumHandle prepare_gated_sum(const GatedSumCall<T>& call, Pass pass) {
  switch (pass) {
    case Pass::kForward:
      return make_gated_sum<T, Pass::kForward>(call);
    case Pass::kBackward:
      return make_gated_sum<T, Pass::kBackward>(call);
    default:
      return call.tangents.has_weights() ? make_gated_sum<T, Pass::kDoubleBackward, true>(call)
                                         : make_gated_sum<T, Pass::kDoubleBackward>(call);
  }
}

}  // namespace SN_ISA
}  // namespace spherenet

SN_KERNEL(GatedSumHandle, prepare_gated_sum, GatedSumCall, (Pass pass), (pass))
