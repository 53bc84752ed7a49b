// The gated sum over one tile in(j) x out(j): the value. gated_sum_tile_vjp.h adds the vector-Jacobian product.
//
// For one neighbor edge q at a time, with lanes over the edges e out of the center: harmonics of all triplets (q, e),
// contracted with q's rows (weights times radial functions) to the coefficients a and t. Then, with lanes over
// channels: M[e] += X[q] (angle_expand a) (torsion_expand t).
#pragma once
#include <algorithm>
#include <cstring>

#include "../math/harmonics.h"
#include "gated_sum_weights.h"

namespace spherenet {
namespace SN_ISA {

// What the compiler knows of the filters: nothing; or that there are up to eight basis channels of angle and of
// torsion, or of angle alone. These are the usual cases, in which the loops over basis channels have a constant length.
enum class Filters { kAny, kAngleAndTorsion, kAngle };

template <class T, bool kDual, bool kBackward, Filters kFilters, bool kDualWeights = false>
class GatedSumTile {
 protected:
  static constexpr bool kOneRow = kFilters != Filters::kAny, kTorsion = kFilters != Filters::kAngle;
  using Num = Numbers<T, kDual>;
  using V = typename Num::V;
  using V8 = typename Num::V8;
  using N = typename Num::N;
  using S = typename Num::S;
  using S8 = typename Num::S8;
  using WeightS = typename Numbers<T, kDualWeights>::S;
  using WeightS8 = typename Numbers<T, kDualWeights>::S8;
  using Filter = FilterWeights<T, kDualWeights>;
  static constexpr int W = kLanes<T>;

  const GatedSumCall<T>& call_;
  const PackedWeights<T, kDualWeights>& weights_;
  const HarmonicTable<T>& table_;
  const GatedSumShape& shape_;
  const int max_m_;  // 0: angle only

  ScratchMemory memory_;
  FilterScratch<T, kDual> angle_, torsion_;
  Vec3<S>* axis_;               // [out blocks]
  Triplet<S>* triplet_;         // [out blocks]  of the current q
  TorsionKind<V>* kind_;        // [out blocks]
  HarmonicState<S>* harmonic_;  // [out blocks]
  S* y_;                        // [out blocks, H], kHarmonicRows more
  N* neighbor_;                 // [3, in]       unit vectors from j
  S* x_;                        // [channel blocks]  of the current q
  N* radial_;                   // [L, K]  of the current q
  V* out_;                      // [out padded, channel blocks]
  V* grad_out_;                 // [out padded, channel blocks]  0 in the padding
  V *elsewhere_, *no_grad_;     // [channel blocks]  for exchange_skipped
  T* grad_neighbor_;            // [3, in]
  Vec3<V>* grad_axis_;          // [out blocks]
  V8* grad_radial_;             // [L, K]        lanes still to be summed

  // The current tile.
  int64_t first_in_, num_in_;  // edges first_in_ .. first_in_ + num_in_ end at j
  const int64_t* out_edges_;   // [num_out_]
  int64_t num_out_, out_blocks_;
  const int32_t* measured_to_;  // [num_in_, num_out_]
  int64_t first_triplet_;
  int64_t skip_;  // position of the current q's opposite edge in out(j), or -1

  // Sixteen registers are few for duals: then fewer sums at a time, so that these stay there. kSums divides kRow.
  static constexpr bool kFewRegisters = kDual && SN_VECTOR_BYTES < 64;
  static constexpr int kHarmonicRows = kFewRegisters ? 4 : 7, kSums = kFewRegisters ? 4 : 8;

  // Groups of eight basis channels: a constant in the usual case, which spares the inner loops their index arithmetic.
  static SN_HD int groups(const Filter& w) { return kOneRow ? 1 : w.groups; }

 public:
  GatedSumTile(const GatedSumCall<T>& call, const PackedWeights<T, kDualWeights>& weights,
               const HarmonicTable<T>& table, const TileLimits& most)
      : call_(call),
        weights_(weights),
        table_(table),
        shape_(call.shape),
        max_m_(weights.torsion.size ? call.shape.num_spherical - 1 : 0) {
    const int64_t blocks = (most.out + W - 1) / W;
    memory_.build([&](ScratchMemory& memory) {
      angle_.layout(memory, weights_.angle, shape_.num_radial, weights_.blocks, most, kBackward);
      torsion_.layout(memory, weights_.torsion, shape_.num_radial, weights_.blocks, most, kBackward);
      axis_ = memory.take<Vec3<S>>(blocks);
      triplet_ = memory.take<Triplet<S>>(blocks);
      kind_ = memory.take<TorsionKind<V>>(blocks);
      harmonic_ = memory.take<HarmonicState<S>>(blocks);
      y_ = memory.take<S>(blocks * kMaxHarmonics + kHarmonicRows);
      neighbor_ = memory.take<N>(3 * most.in);
      x_ = memory.take<S>(weights_.blocks);
      radial_ = memory.take<N>(int64_t(shape_.num_spherical) * shape_.num_radial);
      out_ = memory.take<V>((most.out + kEdges - 1) * weights_.blocks);
      grad_out_ = memory.take<V>((most.out + kEdges - 1) * weights_.blocks);
      elsewhere_ = memory.take<V>(weights_.blocks);
      no_grad_ = memory.take<V>(weights_.blocks);
      grad_neighbor_ = memory.take<T>(3 * most.in);
      grad_axis_ = memory.take<Vec3<V>>(blocks);
      grad_radial_ = memory.take<V8>(int64_t(shape_.num_spherical) * shape_.num_radial);
    });
    // Loops run over rows past the last one: what lies there must not be subnormal, which is slow on some processors.
    std::fill(y_, y_ + blocks * kMaxHarmonics + kHarmonicRows, S{});
    angle_.clear(weights_.angle);
    torsion_.clear(weights_.torsion);
    std::fill(elsewhere_, elsewhere_ + weights_.blocks, V{});
    std::fill(no_grad_, no_grad_ + weights_.blocks, V{});
  }

 protected:
  void open(int64_t j) {
    const TileGraph& graph = call_.graph;
    first_in_ = graph.in_ptr[j];
    num_in_ = graph.in_ptr[j + 1] - first_in_;
    out_edges_ = graph.out_edge + graph.out_ptr[j];
    num_out_ = graph.out_ptr[j + 1] - graph.out_ptr[j];
    out_blocks_ = (num_out_ + W - 1) / W;
    first_triplet_ = graph.triplet_ptr[j];
    measured_to_ = call_.measured_to ? call_.measured_to + graph.triplet_ptr[j] : nullptr;
    if (call_.out) std::fill(out_, out_ + (num_out_ + kEdges - 1) * weights_.blocks, V{});
    if (!weights_.angle.size) return;
    const T* d = call_.inputs.direction;
    const T* dt = call_.tangents.direction;
    for (int64_t q = 0; q < num_in_; ++q)
      for (int k = 0; k < 3; ++k) neighbor_[k * num_in_ + q] = number_at<N>(d, dt, 3 * (first_in_ + q) + k) * T(-1);
    for (int64_t b = 0; b < out_blocks_; ++b)
      for (int i = 0; i < W; ++i) {
        // Lanes past the last edge repeat it: their numbers are finite and never used.
        const int64_t e = out_edges_[b * W + i < num_out_ ? b * W + i : num_out_ - 1];
        Num::set_lane(axis_[b].x, i, number_at<N>(d, dt, 3 * e));
        Num::set_lane(axis_[b].y, i, number_at<N>(d, dt, 3 * e + 1));
        Num::set_lane(axis_[b].z, i, number_at<N>(d, dt, 3 * e + 2));
      }
  }

  // Rows of basis channels, as many as a register has room for. Duals keep values and tangents row by row.
  static constexpr int kRowsOf = !kDual && kLanes<T> >= 2 * kRow ? 2 : 1;
  using Rows = std::conditional_t<kRowsOf == 1, S8, Lanes<T, kRowsOf * kRow>>;
  using WeightRows = std::conditional_t<kRowsOf == 1, WeightS8, Lanes<T, kRowsOf * kRow>>;

  // Calls f(n, count) for radial functions n, n + 1, .. of an order, six at a time: as many as there usually are, and
  // as stay in registers. The count is a constant.
  template <class F>
  SN_HD void over_radial(const F& f) const {
    constexpr int kAtOnce = 6;
    int n = 0;
    for (; n + kAtOnce <= shape_.num_radial; n += kAtOnce) f(n, std::integral_constant<int, kAtOnce>());
    for (; n < shape_.num_radial; ++n) f(n, std::integral_constant<int, 1>());
  }

  // rows[r] = sum over n of weight[r, n] R[q, o(r), n]. Past the end of a run there is a row of the next one, which is
  // written after it.
  void make_rows(const Filter& w, FilterScratch<T, kDual>& s) {
    const int64_t size = w.row_size();
    const int C = groups(w);
    for (int run = 0; run < w.num_runs; ++run) {
      const int first = w.runs[run].first * C, end = first + w.runs[run].count * C;
      const N* of_order = radial_ + w.runs[run].order * shape_.num_radial;
      over_radial([&](int n, auto count) {
        constexpr int kCount = decltype(count)::value;
        N radial[kCount];
#pragma GCC unroll 6
        for (int k = 0; k < kCount; ++k) radial[k] = of_order[n + k];
        for (int i = first; i < end; i += kRowsOf) {
          const WeightS8* weight = w.weight + n * size + i;
          Rows sum = n ? rows_at<Rows>(s.rows + i) : Rows{};
#pragma GCC unroll 6
          for (int k = 0; k < kCount; ++k) add_product(sum, rows_at<WeightRows>(weight + k * size), radial[k]);
          put_rows(sum, s.rows + i);
        }
      });
    }
  }

  // Everything about the triplets (q, out(j)) that does not depend on channels.
  void open_neighbor(int64_t q) {
    const int64_t edge = first_in_ + q;
    skip_ = -1;
    for (int64_t e = 0; e < num_out_; ++e)
      if (call_.graph.rev[out_edges_[e]] == edge) skip_ = e;
    load_channels(call_.inputs.x, call_.tangents.x, edge, x_);
    if (!weights_.angle.size) return;

    const int lk = shape_.num_spherical * shape_.num_radial;
    for (int i = 0; i < lk; ++i) radial_[i] = number_at<N>(call_.inputs.radial, call_.tangents.radial, edge * lk + i);
    make_rows(weights_.angle, angle_);
    if (kTorsion) make_rows(weights_.torsion, torsion_);
    for (int64_t b = 0; b < out_blocks_; ++b) {
      S* y = y_ + b * kMaxHarmonics;
      const SphericalPoint<S> point = find_point(q, b);
      harmonics(shape_.num_spherical, max_m_, table_, point, harmonic_[b], y);
      contract(weights_.angle, angle_, b, y, true);
      if (kTorsion) contract(weights_.torsion, torsion_, b, y, false);
    }
  }

  // Whether the neighbor and the edge are all that a triplet's angle and torsion need of the directions.
  bool is_pair() const { return !measured_to_ && !shape_.angle_at_receiver; }
  Vec3<N> neighbor(int64_t q) const { return {neighbor_[q], neighbor_[num_in_ + q], neighbor_[2 * num_in_ + q]}; }

  SphericalPoint<S> find_point(int64_t q, int64_t b) {
    if (!is_pair()) {
      gather_triplet(q, b);
      return triplet_point(shape_.angle_at_receiver, triplet_[b], kind_[b]);
    }
    const Vec3<N> n = neighbor(q);
    SphericalPoint<S> point{axis_[b].x * n.x + axis_[b].y * n.y + axis_[b].z * n.z, S{}, S{}};
    if (kTorsion && call_.inputs.torsion) load_torsion(q, b, point);
    return point;
  }

  void gather_triplet(int64_t q, int64_t b) {
    Triplet<S>& t = triplet_[b];
    TorsionKind<V>& kind = kind_[b];
    t.axis = axis_[b];
    const Vec3<N> to_all = neighbor(q);
    t.neighbor = {S{} + to_all.x, S{} + to_all.y, S{} + to_all.z};
    for (int i = 0; i < W; ++i) {
      const int64_t e = b * W + i;
      int32_t code = kVanishing;
      if (e < num_out_) {
        if (measured_to_) code = measured_to_[q * num_out_ + e];
        if (shape_.angle_at_receiver && e != skip_) code = kNoNeighbor;
      }
      const int64_t n = code >= 0 ? code : q;
      kind.torsion[i] = code != kVanishing;
      kind.vanishing[i] = code == kVanishing;
      kind.imaginary[i] = code >= 0;
      Num::set_lane(t.other.x, i, neighbor_[n]);
      Num::set_lane(t.other.y, i, neighbor_[num_in_ + n]);
      Num::set_lane(t.other.z, i, neighbor_[2 * num_in_ + n]);
    }
  }

  // Where re and im of the pairs (q, e) lie in a row of `torsion`, for the edges e of a block, and how many these are.
  SN_HD int64_t slot(int64_t q, int64_t b) const { return first_triplet_ + q * num_out_ + b * W; }
  SN_HD int lanes(int64_t b) const { return int(num_out_ - b * W < W ? num_out_ - b * W : W); }

  void load_torsion(int64_t q, int64_t b, SphericalPoint<S>& point) const {
    const int64_t at = slot(q, b), imaginary = at + call_.num_triplets;
    const T *value = call_.inputs.torsion, *tangent = call_.tangents.torsion;
    Num::load(point.re, value + at, tangent ? tangent + at : nullptr, lanes(b));
    Num::load(point.im, value + imaginary, tangent ? tangent + imaginary : nullptr, lanes(b));
  }

  // lanes[p] = sum over rows of rows[r, p] y[r]; the angle's rows are the harmonics with m = 0.
  void contract(const Filter& w, FilterScratch<T, kDual>& s, int64_t b, const S* y, bool zonal) {
    const int C = groups(w);
    for (int group = 0; group < C; ++group)
      for (int first = 0; first < kRow; first += kSums) {
        S sum[kSums] = {};
        for (int r = 0; r < w.rows; ++r) {
          const S8& row = s.rows[r * C + group];
          const S value = y[zonal ? r * r : r];
#pragma GCC unroll 8
          for (int p = 0; p < kSums; ++p) add_product(sum[p], value, Num::lane(row, first + p));
        }
        for (int p = 0; p < kSums; ++p) s.lanes[(b * C + group) * kRow + first + p] = sum[p];
      }
  }

  // Filters are found for several blocks of channels and several edges e at once, so that a load serves more than one
  // product, and the sums stay in registers.
  static constexpr int kBlocks = PackedWeights<T, kDualWeights>::kBlocksAtOnce;
  static constexpr int kEdges = kDual || SN_VECTOR_BYTES < 64 ? 2 : 4;
  struct Filtered {
    S of[2][kBlocks][kEdges];  // angle, torsion
  };

  // The coefficients of the pair (q, e): number p is at p * kStride.
  static constexpr int kStride = int(sizeof(S) / sizeof(T));
  static SN_HD const T* pair(const Filter& w, const FilterScratch<T, kDual>& s, int64_t e) {
    return reinterpret_cast<const T*>(s.lanes + e / W * kRow * groups(w)) + e % W;
  }
  static SN_HD N coefficient(const T* pair, int p) {
    if constexpr (kDual) {
      return {pair[p * kStride], pair[p * kStride + W]};
    } else {
      return pair[p * kStride];
    }
  }

  // Of the channels from `block` on and the pairs (q, e), (q, e + 1), ..: `up` times the coefficients, 1 where a filter
  // is absent; past the last edge any numbers.
  SN_HD Filtered expand(int block, int64_t e) const {
    Filtered filtered;
    // Both together where there are registers for the sums: each waits for itself, so there should be many.
    constexpr bool kTogether = kOneRow && !kFewRegisters;
    expand_filters<0, kTogether && kTorsion ? 2 : 1>(block, e, filtered);
    if constexpr (!kTogether && kTorsion) expand_filters<1, 2>(block, e, filtered);
    return filtered;
  }

  template <int kFirst, int kEnd>
  SN_HD void expand_filters(int block, int64_t e, Filtered& filtered) const {
    const Filter* const weights[] = {&weights_.angle, &weights_.torsion};
    const FilterScratch<T, kDual>* const scratch[] = {&angle_, &torsion_};
    const int size = kRow * groups(*weights[kFirst]);
    const T* coefficients[2];
    const WeightS* up[2];
    S sum[2][kBlocks][kEdges];
#pragma GCC unroll 2
    for (int f = kFirst; f < kEnd; ++f) {
      coefficients[f] = pair(*weights[f], *scratch[f], e);
      up[f] = weights[f]->up + int64_t(block) * size;
#pragma GCC unroll 2
      for (int k = 0; k < kBlocks; ++k)
#pragma GCC unroll 4
        for (int i = 0; i < kEdges; ++i) sum[f][k][i] = S{} + T(size ? 0 : 1);
    }
    // Unrolled, it would load all numbers first, and then keep them in memory for want of registers.
#pragma GCC unroll 1
    for (int p = 0; p < size; ++p)
#pragma GCC unroll 2
      for (int f = kFirst; f < kEnd; ++f) {
        WeightS of_block[kBlocks];
#pragma GCC unroll 2
        for (int k = 0; k < kBlocks; ++k) {
          of_block[k] = up[f][k * size + p];
          keep_in_register(of_block[k]);
        }
#pragma GCC unroll 4
        for (int i = 0; i < kEdges; ++i) {
          const N of_edge = coefficient(coefficients[f] + i, p);
#pragma GCC unroll 2
          for (int k = 0; k < kBlocks; ++k) add_product(sum[f][k][i], of_block[k], of_edge);
        }
      }
#pragma GCC unroll 2
    for (int f = kFirst; f < kEnd; ++f)
      for (int k = 0; k < kBlocks; ++k)
        for (int i = 0; i < kEdges; ++i) filtered.of[f][k][i] = sum[f][k][i];
  }

  // The pair of q and its opposite edge is no triplet: while it is treated like one, what it adds to goes elsewhere,
  // and its cotangent is 0.
  void exchange_skipped() {
    const auto exchange = [&](V* rows, V* with) {
      std::swap_ranges(with, with + weights_.blocks, rows + skip_ * weights_.blocks);
    };
    if (skip_ < 0) return;
    if (call_.out) exchange(out_, elsewhere_);
    if (kBackward) exchange(grad_out_, no_grad_);
  }

  void add_messages() {
    const int blocks = weights_.blocks;
    const int64_t num_out = num_out_;
    for (int block = 0; block < blocks; block += kBlocks) {
      const S* x = x_ + block;
      for (int64_t e = 0; e < num_out; e += kEdges) {
        const Filtered filtered = expand(block, e);
        const auto &angle = filtered.of[0], &torsion = filtered.of[1];
        V* out = out_ + e * blocks + block;
#pragma GCC unroll 4
        for (int i = 0; i < kEdges; ++i, out += blocks)
#pragma GCC unroll 2
          for (int k = 0; k < kBlocks; ++k)
            add_output(out[k], kTorsion ? angle[k][i] * torsion[k][i] : angle[k][i], x[k]);
      }
    }
  }

  // A row of channels, zero past the last one.
  void load_channels(const T* value, const T* tangent, int64_t edge, S* to) const {
    const int C = shape_.channels;
    for (int block = 0; block < weights_.blocks; ++block) {
      if (!kDual && (block + 1) * W <= C) {
        std::memcpy(static_cast<void*>(to + block), value + edge * C + block * W, sizeof(S));
        continue;
      }
      for (int i = 0; i < W; ++i) {
        const int c = block * W + i;
        Num::set_lane(to[block], i, c < C ? number_at<N>(value, tangent, edge * C + c) : N{});
      }
    }
  }
  void store_channels(const V* from, T* to) const { std::memcpy(to, from, sizeof(T) * shape_.channels); }

 public:
  void run(int64_t j) {
    open(j);
    for (int64_t q = 0; q < num_in_; ++q) {
      open_neighbor(q);
      exchange_skipped();
      add_messages();
      exchange_skipped();
    }
    close_out();
  }

 protected:
  void close_out() {
    for (int64_t e = 0; e < num_out_; ++e)
      store_channels(out_ + e * weights_.blocks, call_.out + out_edges_[e] * shape_.channels);
  }
};

}  // namespace SN_ISA
}  // namespace spherenet
