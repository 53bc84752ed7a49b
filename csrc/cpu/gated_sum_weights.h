// The gated sum's weights, padded and transposed once per call so that the tiles read whole registers, and what a tile
// keeps of them.
#pragma once
#include "../math/gated_sum.h"
#include "dual_simd.h"
#include "scratch.h"

namespace spherenet {
namespace SN_ISA {

// Harmonics, one after the other, that meet the same radial functions.
struct HarmonicRun {
  int first, count, order;
};

// One of the two filters: angle (rows = l) or torsion (rows = h).
template <class T, bool kDual>
struct FilterWeights {
  using Num = Numbers<T, kDual>;
  using S = typename Num::S;
  using S8 = typename Num::S8;

  int size = 0;    // P; 0: the filter is absent, and is 1
  int groups = 0;  // of eight basis channels
  int rows = 0;    // L or L*L
  int num_runs = 0;
  HarmonicRun runs[kMaxHarmonics];
  S8* weight = nullptr;   // [K, rows and kOverrun after the last, groups]
  S* up = nullptr;        // [channel blocks, 8 groups]   lanes over channels
  S8* up_rows = nullptr;  // [channels padded, groups]    lanes over basis channels

  static constexpr int kOverrun = 8;  // rows that loops may read and write past the last one

  int64_t row_size() const { return int64_t(rows) * groups; }
  int64_t padded_size() const { return row_size() + int64_t(kOverrun) * groups; }

  // The next harmonic, and the order of the radial functions that it meets.
  void add_row(int order) {
    if (!num_runs || runs[num_runs - 1].order != order) runs[num_runs++] = {rows, 0, order};
    ++runs[num_runs - 1].count;
    ++rows;
  }

  void layout(ScratchMemory& memory, int num_radial, int blocks) {
    weight = memory.take<S8>(row_size() * num_radial + kOverrun * groups);
    up = memory.take<S>(int64_t(blocks) * kRow * groups);
    up_rows = memory.take<S8>(int64_t(blocks) * kLanes<T> * groups);
  }

  // weight [size, rows, K], up [channels, size] and their tangents
  void pack(const T* w, const T* w_tangent, const T* u, const T* u_tangent, int num_radial, int channels, int blocks) {
    for (int i = 0; i < kOverrun * groups; ++i) weight[row_size() * num_radial + i] = S8{};
    for (int64_t rk = 0; rk < int64_t(rows) * num_radial; ++rk)
      for (int p = 0; p < groups * kRow; ++p)
        Num::set_lane(weight[rk % num_radial * row_size() + rk / num_radial * groups + p / kRow], p % kRow,
                      p < size ? number_at<typename Num::N>(w, w_tangent, p * int64_t(rows) * num_radial + rk)
                               : typename Num::N{});
    for (int c = 0; c < blocks * kLanes<T>; ++c)
      for (int p = 0; p < groups * kRow; ++p) {
        const auto number = p < size && c < channels ? number_at<typename Num::N>(u, u_tangent, int64_t(c) * size + p)
                                                     : typename Num::N{};
        Num::set_lane(up[int64_t(c / kLanes<T>) * kRow * groups + p], c % kLanes<T>, number);
        Num::set_lane(up_rows[int64_t(c) * groups + p / kRow], p % kRow, number);
      }
  }
};

// The sizes that scratch memory is laid out for.
struct TileLimits {
  int64_t in = 0, out = 0;  // largest |in(j)| and |out(j)| of the graph
};

// What a tile keeps of one of the two filters.
template <class T, bool kDual>
struct FilterScratch {
  static constexpr int kPairs = 4;  // pairs that share one load of the weights
  using Num = Numbers<T, kDual>;
  typename Num::S8* rows;          // [rows and kOverrun, groups]  sum over n of weight times radial, for the current q
  typename Num::S* lanes;          // [out blocks, 8 groups]         a or t of the pairs (q, e), lanes over e
  typename Num::S8* grad_rows;     // [rows, groups]            cotangents of the same
  typename Num::S* grad_lanes;     // [out blocks, 8 groups]
  typename Num::S8* grad_filters;  // [out blocks and kPairs, groups]   grad_lanes with lanes over basis channels
  typename Num::S* grad_channels;  // [out padded, channel blocks]   of the filters, per channel
  typename Num::V8* grad_weight;   // [K, rows, groups]       summed over the chunk of tiles
  typename Num::V* grad_up;        // [channel blocks, 8 groups]

  template <class Weights>
  void clear(const Weights& w) {
    for (int64_t i = 0; i < w.padded_size(); ++i) rows[i] = typename Num::S8{};
  }

  template <class Weights>
  void layout(ScratchMemory& memory, const Weights& w, int num_radial, int64_t channel_blocks, const TileLimits& most,
              bool backward) {
    constexpr int W = kLanes<T>;
    const int64_t blocks = (most.out + W - 1) / W, padded = most.out + kPairs - 1;
    rows = memory.take<typename Num::S8>(w.padded_size());
    lanes = memory.take<typename Num::S>(kRow * w.groups * blocks);
    if (!backward) return;
    grad_rows = memory.take<typename Num::S8>(w.row_size());
    grad_lanes = memory.take<typename Num::S>(kRow * w.groups * blocks);
    grad_filters = memory.take<typename Num::S8>((blocks * W + kPairs) * w.groups);
    grad_channels = memory.take<typename Num::S>(padded * channel_blocks);
    grad_weight = memory.take<typename Num::V8>(w.row_size() * num_radial);
    grad_up = memory.take<typename Num::V>(channel_blocks * kRow * w.groups);
  }
};

// Duals if the weights have tangents: those of a second derivative by positions alone have none.
template <class T, bool kDual>
struct PackedWeights {
  static constexpr int kBlocksAtOnce = 2;
  FilterWeights<T, kDual> angle, torsion;
  int blocks;  // of kLanes channels, a multiple of kBlocksAtOnce

  explicit PackedWeights(const GatedSumCall<T>& call) {
    const GatedSumShape& shape = call.shape;
    constexpr int kStep = kBlocksAtOnce * kLanes<T>;
    blocks = (shape.channels + kStep - 1) / kStep * kBlocksAtOnce;
    angle.size = shape.angle_size;
    torsion.size = shape.torsion_size;
    for (int l = 0, h = 0; l < shape.num_spherical; ++l) {
      angle.add_row(l);
      for (; h < (l + 1) * (l + 1); ++h) torsion.add_row(shape.dig ? h % shape.num_spherical : l);
    }
    angle.groups = (angle.size + kRow - 1) / kRow;
    torsion.groups = (torsion.size + kRow - 1) / kRow;
    memory_.build([&](ScratchMemory& memory) {
      angle.layout(memory, shape.num_radial, blocks);
      torsion.layout(memory, shape.num_radial, blocks);
    });
    angle.pack(call.inputs.angle_weight, call.tangents.angle_weight, call.inputs.angle_expand,
               call.tangents.angle_expand, shape.num_radial, shape.channels, blocks);
    torsion.pack(call.inputs.torsion_weight, call.tangents.torsion_weight, call.inputs.torsion_expand,
                 call.tangents.torsion_expand, shape.num_radial, shape.channels, blocks);
  }

 private:
  ScratchMemory memory_;
};

}  // namespace SN_ISA
}  // namespace spherenet
