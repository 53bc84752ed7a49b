// The vector-Jacobian product of the gated sum over one tile. With duals its tangents are the second derivatives.
#pragma once
#include "gated_sum_tile.h"

namespace spherenet {
namespace SN_ISA {

template <class T, bool kDual, Filters kFilters, bool kDualWeights = false>
class GatedSumTileVjp : public GatedSumTile<T, kDual, true, kFilters, kDualWeights> {
  using Base = GatedSumTile<T, kDual, true, kFilters, kDualWeights>;
  using Num = Numbers<T, kDual>;
  using V = typename Num::V;
  using V8 = typename Num::V8;
  using N = typename Num::N;
  using S = typename Num::S;
  using S8 = typename Num::S8;
  using Filter = typename Base::Filter;
  using WeightS8 = typename Base::WeightS8;
  using Scratch = FilterScratch<T, kDual>;
  using Base::angle_, Base::torsion_, Base::weights_, Base::shape_, Base::call_, Base::num_in_, Base::num_out_,
      Base::out_blocks_, Base::skip_, Base::grad_out_, Base::out_, Base::x_, Base::y_, Base::first_in_,
      Base::out_edges_, Base::table_, Base::max_m_, Base::grad_radial_, Base::grad_neighbor_, Base::grad_axis_,
      Base::axis_, Base::radial_;
  using Filtered = typename Base::Filtered;
  static constexpr int W = Base::W, kPairs = Scratch::kPairs;
  static constexpr int kBlocks = Base::kBlocks, kEdges = Base::kEdges, kHarmonicRows = Base::kHarmonicRows;
  static_assert(kEdges <= kPairs, "grad_channels has room for kPairs - 1 edges past the last one");
  static constexpr bool kOneRow = Base::kOneRow, kTorsion = Base::kTorsion;
  const bool geometry_;  // radial functions and directions want their gradients
  const bool weights_wanted_;

 public:
  GatedSumTileVjp(const GatedSumCall<T>& call, const PackedWeights<T, kDualWeights>& weights,
                  const HarmonicTable<T>& table, const TileLimits& most)
      : Base(call, weights, table, most),
        geometry_(call.grads.radial != nullptr),
        weights_wanted_(call.grads.weights != nullptr) {
    zero_weight_gradients(weights_.angle, angle_);
    zero_weight_gradients(weights_.torsion, torsion_);
  }

  void run(int64_t j) {
    this->open(j);
    std::fill(grad_out_, grad_out_ + (num_out_ + kEdges - 1) * weights_.blocks, V{});
    for (int64_t e = 0; e < num_out_; ++e) {
      const T* row = call_.grad_out + out_edges_[e] * shape_.channels;
      std::memcpy(static_cast<void*>(grad_out_ + e * weights_.blocks), row, sizeof(T) * shape_.channels);
    }
    if (geometry_) {
      for (int64_t i = 0; i < 3 * num_in_; ++i) grad_neighbor_[i] = 0;
      for (int64_t b = 0; b < out_blocks_; ++b) grad_axis_[b] = {V{}, V{}, V{}};
    }
    for (int64_t q = 0; q < num_in_; ++q) {
      this->open_neighbor(q);
      this->exchange_skipped();
      channel_gradients(q);
      this->exchange_skipped();
      if (!weights_.angle.size) continue;
      const int64_t edge = first_in_ + q;
      const int lk = shape_.num_spherical * shape_.num_radial;
      for (int i = 0; i < lk; ++i) grad_radial_[i] = V8{};
      filter_gradients_of_channels();
      filter_gradients(weights_.angle, angle_, true);
      if (kTorsion) filter_gradients(weights_.torsion, torsion_, false);
      if (!geometry_) continue;
      for (int i = 0; i < lk; ++i) {
        T sum = 0;
        for (int p = 0; p < kRow; ++p) sum += grad_radial_[i][p];
        call_.grads.radial[edge * lk + i] = sum;
      }
      direction_gradients(q);
    }
    if (kDual) this->close_out();
    if (geometry_) close_directions();
  }

  // The sums over all tiles run so far, to weights [angle_weight, angle_expand, torsion_weight, torsion_expand].
  void store_weight_gradients(T* weights) const {
    weights = store_filter(weights_.angle, angle_, weights);
    store_filter(weights_.torsion, torsion_, weights);
  }

 private:
  void zero_weight_gradients(const Filter& w, Scratch& s) {
    for (int64_t i = 0; i < w.row_size() * shape_.num_radial; ++i) s.grad_weight[i] = V8{};
    for (int64_t i = 0; i < int64_t(weights_.blocks) * kRow * w.groups; ++i) s.grad_up[i] = V{};
  }

  T* store_filter(const Filter& w, const Scratch& s, T* to) const {
    for (int p = 0; p < w.size; ++p)
      for (int r = 0; r < w.rows; ++r)
        for (int n = 0; n < shape_.num_radial; ++n)
          *to++ = s.grad_weight[n * w.row_size() + int64_t(r) * w.groups + p / kRow][p % kRow];
    for (int c = 0; c < shape_.channels; ++c)
      for (int p = 0; p < w.size; ++p) *to++ = s.grad_up[int64_t(c / W) * kRow * w.groups + p][c % W];
    return to;
  }

  // The gradient of x, of the two `up` matrices, and (in grad_channels) of the two filters.
  void channel_gradients(int64_t q) {
    const int blocks = weights_.blocks;
    const int64_t num_out = num_out_;
    for (int block = 0; block < blocks; block += kBlocks) {
      V grad_x[kBlocks] = {};
      for (int64_t e = 0; e < num_out; e += kEdges) {
        const Filtered filtered = this->expand(block, e);
        const int64_t at = e * blocks + block;
        const V* grad_out = grad_out_ + at;
        V* out = out_ + at;
        S *grad_angle = angle_.grad_channels + at, *grad_torsion = torsion_.grad_channels + at;
        const S* x = x_ + block;
#pragma GCC unroll 4
        for (int i = 0; i < kEdges; ++i)
#pragma GCC unroll 2
          for (int k = 0; k < kBlocks; ++k) {
            const S a = filtered.of[0][k][i], t = kTorsion ? filtered.of[1][k][i] : S{};
            const S filter = kTorsion ? a * t : a;
            const int to = i * blocks + k;
            const S along = x[k] * grad_out[to];
            add_output(grad_x[k], filter, grad_out[to]);
            if (kDual) add_output(out[to], filter, x[k]);
            grad_angle[to] = kTorsion ? along * t : along;
            if (kTorsion) grad_torsion[to] = along * a;
          }
      }
      for (int k = 0, first = block * W; k < kBlocks && first < shape_.channels; ++k, first += W)
        store_lanes<T>(grad_x[k], call_.grads.x + (first_in_ + q) * shape_.channels + first, shape_.channels - first);
      if (!weights_wanted_) continue;
      add_up_gradients(weights_.angle, angle_, block);
      if (kTorsion) add_up_gradients(weights_.torsion, torsion_, block);
    }
  }

  // grad_up[c, p] += sum over e of grad_channels[e, c] times coefficient p of (q, e), for some p at a time
  void add_up_gradients(const Filter& w, Scratch& s, int block) {
    constexpr int kAtOnce = 8 / kBlocks;
    const int size = kRow * this->groups(w), blocks = weights_.blocks;
    const int64_t num_out = num_out_;
    for (int first = 0; first < size; first += kAtOnce) {
      V* to = s.grad_up + int64_t(block) * size + first;
      V sum[kBlocks][kAtOnce];
#pragma GCC unroll 2
      for (int k = 0; k < kBlocks; ++k)
#pragma GCC unroll 8
        for (int p = 0; p < kAtOnce; ++p) sum[k][p] = to[k * size + p];
      const S* grads = s.grad_channels + block;
      for (int64_t e = 0; e < num_out; ++e, grads += blocks) {
        const T* pair = this->pair(w, s, e);
        S grad[kBlocks];
#pragma GCC unroll 2
        for (int k = 0; k < kBlocks; ++k) {
          grad[k] = grads[k];
          keep_in_register(grad[k]);
        }
#pragma GCC unroll 8
        for (int p = 0; p < kAtOnce; ++p) {
          const N of_edge = Base::coefficient(pair, first + p);
#pragma GCC unroll 2
          for (int k = 0; k < kBlocks; ++k) add_output(sum[k][p], grad[k], of_edge);
        }
      }
#pragma GCC unroll 2
      for (int k = 0; k < kBlocks; ++k)
#pragma GCC unroll 8
        for (int p = 0; p < kAtOnce; ++p) to[k * size + p] = sum[k][p];
    }
  }

  // From grad_filters to the gradients of this filter's weight and of the radial functions.
  void filter_gradients(const Filter& w, Scratch& s, bool zonal) {
    const int K = shape_.num_radial, C = this->groups(w);
    for (int group = 0; group < C; ++group)
      for (int first = 0; first < w.rows; first += kHarmonicRows) {
        if (zonal) {
          row_gradients(w, s, group, first, [&](int i) {
            const int l = std::min(first + i, kMaxSpherical - 1);
            return l * l;
          });
        } else {
          row_gradients(w, s, group, first, [&](int i) { return first + i; });
        }
      }
    for (int run = 0; run < w.num_runs; ++run) {
      const int64_t first = w.runs[run].first * C;
      const int count = w.runs[run].count * C, at = w.runs[run].order * K;
      const S8* grads = s.grad_rows + first;
      if (weights_wanted_) add_weight_gradients(s.grad_weight + first, w.row_size(), grads, radial_ + at, count);
      if (geometry_) add_radial_gradients(grad_radial_ + at, w.weight + first, w.row_size(), grads, count);
    }
  }

  // sums[n, i] += grads[i] radial[n], for `rows` rows i
  void add_weight_gradients(V8* sums, int64_t row_size, const S8* grads, const N* radial, int rows) const {
    this->over_radial([&](int n, auto count) {
      constexpr int kCount = decltype(count)::value;
      N factor[kCount];
      V8* to[kCount];
#pragma GCC unroll 6
      for (int k = 0; k < kCount; ++k) {
        factor[k] = radial[n + k];
        to[k] = sums + (n + k) * row_size;
      }
      const auto add = [&](const auto& grad, int i) {
#pragma GCC unroll 6
        for (int k = 0; k < kCount; ++k) {
          auto sum = rows_at<std::decay_t<decltype(output_of(grad))>>(to[k] + i);
          add_output(sum, grad, factor[k]);
          put_rows(sum, to[k] + i);
        }
      };
      int i = 0;
      for (; i + Base::kRowsOf <= rows; i += Base::kRowsOf) add(rows_at<typename Base::Rows>(grads + i), i);
      if (i < rows) add(grads[i], i);
    });
  }

  // sums[n] += sum over `rows` rows i of grads[i] weight[n, i]
  void add_radial_gradients(V8* sums, const WeightS8* weight, int64_t row_size, const S8* grads, int rows) const {
    this->over_radial([&](int n, auto count) {
      constexpr int kCount = decltype(count)::value;
      V8 sum[kCount];
#pragma GCC unroll 6
      for (int k = 0; k < kCount; ++k) sum[k] = sums[n + k];
      for (int i = 0; i < rows; ++i)
#pragma GCC unroll 6
        for (int k = 0; k < kCount; ++k) add_output(sum[k], grads[i], weight[(n + k) * row_size + i]);
#pragma GCC unroll 6
      for (int k = 0; k < kCount; ++k) sums[n + k] = sum[k];
    });
  }

  // grad_filters[e] = sum over channels c of grad_channels[e, c] up_rows[c], for kPairs edges e at a time, and for both
  // filters at once where there are registers for the sums: each waits for itself, so there should be many.
  void filter_gradients_of_channels() {
    Scratch* const both[] = {&angle_, &torsion_};
    const Filter* const weights[] = {&weights_.angle, &weights_.torsion};
    if (kOneRow && !Base::kFewRegisters) return sum_channels<kTorsion ? 2 : 1>(both, weights, 0);
    for (int f = 0; f < 2; ++f)
      for (int group = 0; group < weights[f]->groups; ++group) sum_channels<1>(both + f, weights + f, group);
  }

  template <int kFilterCount>
  void sum_channels(Scratch* const* s, const Filter* const* w, int group) {
    const int C = this->groups(*w[0]), blocks = weights_.blocks;
    for (int64_t e = 0; e < num_out_; e += kPairs) {
      S8 sum[kFilterCount][kPairs] = {};
      const S* grads[kFilterCount];
      const WeightS8* row[kFilterCount];
      for (int f = 0; f < kFilterCount; ++f) {
        grads[f] = s[f]->grad_channels + e * blocks;
        row[f] = w[f]->up_rows + group;
      }
      for (int block = 0; block < blocks; ++block) {
#pragma GCC unroll 4
        for (int i = 0; i < W; ++i)
          for (int f = 0; f < kFilterCount; ++f)
            for (int pair = 0; pair < kPairs; ++pair)
              add_product(sum[f][pair], row[f][i * C], Num::lane(grads[f][pair * blocks], i));
        for (int f = 0; f < kFilterCount; ++f) {
          ++grads[f];
          row[f] += W * C;
        }
      }
      for (int f = 0; f < kFilterCount; ++f)
        for (int pair = 0; pair < kPairs; ++pair) s[f]->grad_filters[(e + pair) * C + group] = sum[f][pair];
    }
  }

  // grad_rows[r] = sum over e of y[e, o(r)] grad_filters[e], where the harmonic o(r) is r, or r * r for the angle, for
  // some rows r from `first` on, whose sums stay in registers. Rows past the last one are computed, not stored.
  template <class Harmonic>
  SN_HD void row_gradients(const Filter& w, Scratch& s, int group, int first, const Harmonic& harmonic) {
    const int C = this->groups(w);
    S8 sum[kHarmonicRows] = {};
    const S8* filter = s.grad_filters + group;
    for (int64_t b = 0; b < out_blocks_; ++b) {
      const S* y = y_ + b * kMaxHarmonics;
      const int count = this->lanes(b);
      for (int lane = 0; lane < count; ++lane, filter += C)
#pragma GCC unroll 8
        for (int i = 0; i < kHarmonicRows; ++i) add_product(sum[i], *filter, Num::lane(y[harmonic(i)], lane));
    }
    for (int i = 0; i < kHarmonicRows && first + i < w.rows; ++i) s.grad_rows[(first + i) * C + group] = sum[i];
  }

  // grad_lanes: grad_filters with lanes over edges, zero in the lanes past the last edge.
  void transpose_filters(const Filter& w, Scratch& s) {
    const int C = this->groups(w);
    for (int64_t i = num_out_ * C; i < out_blocks_ * W * C; ++i) s.grad_filters[i] = S8{};
    constexpr int kParts = kDual ? 2 : 1;  // values and tangents
    const int stride = kParts * kRow * C;
    for (int64_t b = 0; b < out_blocks_; ++b)
      for (int group = 0; group < C; ++group) {
        const T* from = reinterpret_cast<const T*>(s.grad_filters + b * W * C + group);
        T* to = reinterpret_cast<T*>(s.grad_lanes + (b * C + group) * kRow);
        for (int p = 0; p < kRow; ++p)
          for (int part = 0; part < kParts; ++part, to += W)
            for (int lane = 0; lane < W; ++lane) to[lane] = from[lane * stride + part * kRow + p];
      }
  }

  // grad_y[r] = or, if it `holds` something, += sum over p of rows[r, p] grad_lanes[p]. Rows past the last one are
  // computed, not stored.
  SN_HD void add_harmonic_gradients(const Filter& w, const Scratch& s, int64_t b, bool zonal, bool holds,
                                    S* grad_y) const {
    const int C = this->groups(w);
    for (int first = 0; first < w.rows; first += kHarmonicRows) {
      S sum[kHarmonicRows] = {};
      for (int group = 0; group < C; ++group)
        for (int p = 0; p < kRow; ++p) {
          const S lanes = s.grad_lanes[(b * C + group) * kRow + p];
#pragma GCC unroll 8
          for (int i = 0; i < kHarmonicRows; ++i)
            add_product(sum[i], lanes, Num::lane(s.rows[(first + i) * C + group], p));
        }
#pragma GCC unroll 8
      for (int i = 0; i < kHarmonicRows; ++i) {
        if (first + i >= w.rows) continue;
        S& to = grad_y[zonal ? (first + i) * (first + i) : first + i];
        to = holds ? to + sum[i] : sum[i];
      }
    }
  }

  void direction_gradients(int64_t q) {
    transpose_filters(weights_.angle, angle_);
    if (kTorsion) transpose_filters(weights_.torsion, torsion_);
    Vec3<V> of_neighbor{V{}, V{}, V{}};
    for (int64_t b = 0; b < out_blocks_; ++b) {
      S grad_y[kMaxHarmonics];  // of those with m = 0 alone, if there is no torsion
      const bool all = kTorsion && max_m_;
      if (all) add_harmonic_gradients(weights_.torsion, torsion_, b, false, false, grad_y);
      add_harmonic_gradients(weights_.angle, angle_, b, true, all, grad_y);
      const SphericalPoint<S> grad = harmonics_vjp(shape_.num_spherical, max_m_, table_, this->harmonic_[b], grad_y);
      if (kTorsion && call_.grads.torsion) store_torsion_gradient(q, b, grad);
      if (this->is_pair()) {
        add_pair_gradients(q, b, grad.z, of_neighbor);
        continue;
      }
      const Triplet<S> t = triplet_point_vjp(shape_.angle_at_receiver, this->triplet_[b], this->kind_[b], grad);
      grad_axis_[b] = grad_axis_[b] + Vec3<V>{output_of(t.axis.x), output_of(t.axis.y), output_of(t.axis.z)};
      for (int i = 0; i < W && b * W + i < num_out_; ++i) {
        const int64_t e = b * W + i;
        const int32_t code = this->measured_to_ ? this->measured_to_[q * num_out_ + e] : kVanishing;
        const int64_t n = code >= 0 ? code : q;
        add_neighbor_gradient(q, t.neighbor, i);
        add_neighbor_gradient(n, t.other, i);
      }
    }
    for (int i = 0; i < W; ++i) {
      grad_neighbor_[q] += of_neighbor.x[i];
      grad_neighbor_[num_in_ + q] += of_neighbor.y[i];
      grad_neighbor_[2 * num_in_ + q] += of_neighbor.z[i];
    }
  }

  // Of z, the product of the neighbor with the edges of a block. It is 0 in the lanes past the last edge.
  void add_pair_gradients(int64_t q, int64_t b, const S& grad_z, Vec3<V>& of_neighbor) {
    const Vec3<N> n = this->neighbor(q);
    add_output(grad_axis_[b].x, grad_z, n.x);
    add_output(grad_axis_[b].y, grad_z, n.y);
    add_output(grad_axis_[b].z, grad_z, n.z);
    add_output(of_neighbor.x, grad_z, axis_[b].x);
    add_output(of_neighbor.y, grad_z, axis_[b].y);
    add_output(of_neighbor.z, grad_z, axis_[b].z);
  }

  void store_torsion_gradient(int64_t q, int64_t b, const SphericalPoint<S>& grad) const {
    T* to = call_.grads.torsion + this->slot(q, b);
    store_lanes<T>(output_of(grad.re), to, this->lanes(b));
    store_lanes<T>(output_of(grad.im), to + call_.num_triplets, this->lanes(b));
  }

  SN_HD void add_neighbor_gradient(int64_t n, const Vec3<S>& grad, int i) {
    grad_neighbor_[n] += output_of(grad.x)[i];
    grad_neighbor_[num_in_ + n] += output_of(grad.y)[i];
    grad_neighbor_[2 * num_in_ + n] += output_of(grad.z)[i];
  }

  // Directions point to the center, neighbors' vectors away from it: hence the sign.
  void close_directions() {
    for (int64_t q = 0; q < num_in_; ++q)
      for (int k = 0; k < 3; ++k) call_.grads.direction_in[3 * (first_in_ + q) + k] = -grad_neighbor_[k * num_in_ + q];
    for (int64_t e = 0; e < num_out_; ++e) {
      T* to = call_.grads.direction_out + 3 * out_edges_[e];
      const Vec3<V>& axis = grad_axis_[e / W];
      to[0] = axis.x[e % W];
      to[1] = axis.y[e % W];
      to[2] = axis.z[e % W];
    }
  }
};

}  // namespace SN_ISA
}  // namespace spherenet
