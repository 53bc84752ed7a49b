// The gated sum over the tiles in(j) x out(j) on a GPU: what the kernels for its value and its gradients share.
#pragma once
#include "gated_sum_memory.h"
#include "tensor_cores.h"

namespace spherenet::cuda {

// One of the two filters, and a row of it.
template <class T>
struct FilterRow {
  const T *weight, *tangent;  // [size, rows, K]
  int size, rows;
  int row;    // l of the angle, h of the torsion
  int order;  // the radial order o that it meets
};

// One tile and the portion of it that the block is at.
template <class T, bool kDual, bool kManyGroups>
class GatedSumBlock {
 protected:
  using Num = Numbers<T, kDual, kManyGroups>;
  using N = typename Num::N;

  const GatedSumCall<T>& call_;
  const HarmonicTable<T>& table_;
  const GatedSumSizes sizes_;
  const GatedSumShape& shape_;
  GatedSumMemory<T, kDual, kManyGroups> memory_;

  int j_;             // the tile's atom
  int64_t first_in_;  // edges first_in_ .. first_in_ + num_in_ end at j
  int num_in_, num_out_;
  int q0_, nq_;  // the portion's edges q: first_in_ + q0_ .. first_in_ + q0_ + nq_
  int e0_, ne_;  // the portion's edges e: memory_.edge[0] .. memory_.edge[ne_ - 1]

  SN_DEVICE GatedSumBlock(const GatedSumCall<T>& call, const HarmonicTable<T>& table, const GatedSumSizes& sizes,
                          SharedPieces pieces, bool backward)
      : call_(call), table_(table), sizes_(sizes), shape_(call.shape), memory_(pieces, call.shape, sizes, backward) {
    // Absent filters have coefficients 0, to which their 1 is added.
    if (!shape_.angle_size)
      for (int i = threadIdx.x; i < sizes_.neighbors * kEdges * sizes_.slot; i += kThreads)
        memory_.coefficients[i] = N{};
  }

  SN_DEVICE void open(int j) {
    const TileGraph& graph = call_.graph;
    j_ = j;
    first_in_ = graph.in_ptr[j];
    num_in_ = int(graph.in_ptr[j + 1] - first_in_);
    num_out_ = int(graph.out_ptr[j + 1] - graph.out_ptr[j]);
  }

  // Edge number e of out(j). What is read once a portion is not kept in a register.
  SN_DEVICE int64_t out_edge(int e) const { return call_.graph.out_edge[call_.graph.out_ptr[j_] + e]; }

  // The direction of an edge, times sign.
  SN_DEVICE Vec3<N> direction(int64_t edge, T sign) const {
    const T *value = call_.inputs.direction, *tangent = call_.tangents.direction;
    return {number_at<N>(value, tangent, 3 * edge) * sign, number_at<N>(value, tangent, 3 * edge + 1) * sign,
            number_at<N>(value, tangent, 3 * edge + 2) * sign};
  }

  // The portion's edges q: from q0 on, before `end`.
  SN_DEVICE void open_neighbors(int q0, int end) {
    q0_ = q0;
    nq_ = min(end - q0, sizes_.neighbors);
  }

  // Edges e0 .. e0 + ne of out(j), with all that does not depend on q.
  SN_DEVICE void open_edges(int e0, int ne) {
    e0_ = e0;
    ne_ = ne;
    __syncthreads();  // nobody reads the last portion any more
    if (int(threadIdx.x) < ne) {
      const int64_t edge = out_edge(e0 + threadIdx.x);
      const int64_t opposite = call_.graph.rev[edge] - first_in_;
      memory_.edge[threadIdx.x] = edge;
      memory_.opposite[threadIdx.x] = opposite >= 0 && opposite < num_in_ ? int(opposite) : -1;
      if (shape_.angle_size) memory_.axis[threadIdx.x] = direction(edge, T(1));
    }
    __syncthreads();
  }

  SN_DEVICE FilterRow<T> filter_row(int row) const {
    const int L = shape_.num_spherical;
    if (row < L) return {call_.inputs.angle_weight, call_.tangents.angle_weight, shape_.angle_size, L, row, row};
    const int h = row - L;
    int order = 0;
    while ((order + 1) * (order + 1) <= h) ++order;
    if (shape_.dig) order = h % L;
    return {call_.inputs.torsion_weight, call_.tangents.torsion_weight, shape_.torsion_size, L * L, h, order};
  }

  // memory_.radial, from [E, L, K]
  SN_DEVICE void load_radial() {
    const int lk = shape_.num_spherical * shape_.num_radial;
    for (int i = threadIdx.x; i < nq_ * lk; i += kThreads)
      memory_.radial[i % lk * Num::kRadialStride + i / lk] =
          number_at<N>(call_.inputs.radial, call_.tangents.radial, (first_in_ + q0_) * lk + i);
    __syncthreads();
  }

  // memory_.rows of one group: a thread takes two basis channels of a row, and all q, so that weights are read once.
  SN_DEVICE void make_rows(int group) {
    const int K = shape_.num_radial;
    for (int item = threadIdx.x; item < kRow / 2 * sizes_.rows; item += kThreads) {
      const FilterRow<T> filter = filter_row(item / (kRow / 2));
      const int first = group * kRow + item % (kRow / 2) * 2;
      N sum[Num::kNeighbors][2] = {};
#pragma unroll 1
      for (int n = 0; n < K; ++n) {
        N weight[2];
#pragma unroll
        for (int p = 0; p < 2; ++p)
          weight[p] = first + p < filter.size ? number_at<N>(filter.weight, filter.tangent,
                                                             (int64_t(first + p) * filter.rows + filter.row) * K + n)
                                              : N{};
        const Quad<N>* radial =
            reinterpret_cast<const Quad<N>*>(memory_.radial + (filter.order * K + n) * Num::kRadialStride);
#pragma unroll
        for (int four = 0; four < Num::kNeighbors / 4; ++four) {
          const Quad<N> value = radial[four];
#pragma unroll
          for (int q = 0; q < 4; ++q)
#pragma unroll
            for (int p = 0; p < 2; ++p) sum[4 * four + q][p] += weight[p] * value.v[q];
        }
      }
#pragma unroll
      for (int q = 0; q < Num::kNeighbors; ++q)
        if (q < nq_) reinterpret_cast<Couple<N>*>(memory_.rows + q * sizes_.row_stride)[item] = {sum[q][0], sum[q][1]};
    }
    __syncthreads();
  }

  // The number of the portion's pair (q, e) among all.
  SN_DEVICE int64_t pair(int q, int e) const {
    return call_.graph.triplet_ptr[j_] + int64_t(q0_ + q) * num_out_ + e0_ + e;
  }

  // The portion's pair (q, e); returns the number within in(j) of whom it is measured to, q's own if nobody.
  SN_DEVICE int gather_triplet(int q, int e, Triplet<N>& triplet, TorsionKind<T>& kind) const {
    int32_t code = kVanishing;
    if (call_.measured_to) code = call_.measured_to[pair(q, e)];
    if (shape_.angle_at_receiver && memory_.opposite[e] != q0_ + q) code = kNoNeighbor;
    const int source = code >= 0 ? code : q0_ + q;
    kind.torsion = T(code != kVanishing);
    kind.vanishing = T(code == kVanishing);
    kind.imaginary = T(code >= 0);
    triplet.axis = memory_.axis[e];
    triplet.neighbor = direction(first_in_ + q0_ + q, T(-1));
    triplet.other = direction(first_in_ + source, T(-1));
    return source;
  }

  // Where the harmonics of the pair (q, e) are taken.
  SN_DEVICE SphericalPoint<N> point_of(int q, int e) const {
    Triplet<N> triplet;
    TorsionKind<T> kind;
    gather_triplet(q, e, triplet, kind);
    SphericalPoint<N> point = triplet_point(shape_.angle_at_receiver, triplet, kind);
    if (call_.inputs.torsion) {
      const int64_t re = pair(q, e);
      point.re = number_at<N>(call_.inputs.torsion, call_.tangents.torsion, re);
      point.im = number_at<N>(call_.inputs.torsion, call_.tangents.torsion, call_.num_triplets + re);
    }
    return point;
  }

  SN_DEVICE N* slot(int q, int e, int group) const {
    return memory_.coefficients + (q * kEdges + e) * sizes_.slot + group * kCoefficients;
  }

  // f(pairs of a thread), as a constant: one is enough where the portion has few edges e.
  template <class F>
  SN_DEVICE void with_pairs(const F& f) const {
    if constexpr (Num::kPairs > 1) {
      if (ne_ > Num::kPairLanes) return f(std::integral_constant<int, Num::kPairs>{});
    }
    f(std::integral_constant<int, 1>{});
  }

  // Coefficients of one group: a thread takes a q and the edges lane, lane + kPairLanes, ..
  template <bool kRounded = false>  // to TF32
  SN_DEVICE void make_coefficients(int group) {
    with_pairs([&](auto pairs) { coefficients_of<pairs, kRounded>(group); });
  }
  template <int kPairs, bool kRounded>
  SN_DEVICE void coefficients_of(int group) {
    const int q = threadIdx.x / Num::kPairLanes, lane = threadIdx.x % Num::kPairLanes;
    if (q >= nq_) return;
    SphericalPoint<N> point[kPairs];
#pragma unroll
    for (int i = 0; i < kPairs; ++i)
      point[i] = point_of(q, min(lane + i * Num::kPairLanes, ne_ - 1));  // past the end: not stored
    const int L = shape_.num_spherical, last_m = shape_.torsion_size ? L - 1 : 0;
    const N* rows = memory_.rows + q * sizes_.row_stride;
    N angle[kPairs][kRow] = {}, torsion[kPairs][kRow] = {}, cosine[kPairs] = {}, sine[kPairs] = {};
    for (int m = 0; m <= last_m; ++m) {
      LegendreColumn<N, T> column[kPairs];
#pragma unroll
      for (int i = 0; i < kPairs; ++i) {
        column[i] = LegendreColumn<N, T>::first(table_, m);
        turn(m, point[i], cosine[i], sine[i]);
      }
      for (int l = m; l < L; ++l) {
        N y[kPairs];
#pragma unroll
        for (int i = 0; i < kPairs; ++i) {
          if (l > m) column[i].next(table_, legendre_index(l, m), point[i].z);
          y[i] = column[i].current;
        }
        if (m == 0) add_row(angle, rows + l * kRow, y);
        if (!shape_.torsion_size) continue;
#pragma unroll
        for (int i = 0; i < kPairs; ++i) y[i] = column[i].current * cosine[i];
        add_row(torsion, rows + (L + l * l + m) * kRow, y);
        if (m == 0) continue;
#pragma unroll
        for (int i = 0; i < kPairs; ++i) y[i] = column[i].current * sine[i];
        add_row(torsion, rows + (L + l * l + 2 * l + 1 - m) * kRow, y);
      }
    }
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      const int e = lane + i * Num::kPairLanes;
      if (e >= ne_) continue;
      if constexpr (kRounded) {
#pragma unroll
        for (int p = 0; p < kRow; ++p)
          angle[i][p] = round_to_tf32(angle[i][p]), torsion[i][p] = round_to_tf32(torsion[i][p]);
      }
      store_row(slot(q, e, group), angle[i]);
      store_row(slot(q, e, group) + kRow, torsion[i]);
    }
  }

  // From (re + i im)^(m-1) to (re + i im)^m.
  static SN_DEVICE void turn(int m, const SphericalPoint<N>& point, N& cosine, N& sine) {
    const N before = cosine;
    cosine = m == 0 ? N{} + T(1) : before * point.re - sine * point.im;
    sine = m == 0 ? N{} : sine * point.re + before * point.im;
  }

  template <int kPairs>
  static SN_DEVICE void add_row(N (&sum)[kPairs][kRow], const N* from, const N (&y)[kPairs]) {
    N row[kRow];
    load_row(row, from);
#pragma unroll
    for (int i = 0; i < kPairs; ++i)
#pragma unroll
      for (int p = 0; p < kRow; ++p) sum[i][p] += row[p] * y[i];
  }

  // ---- channels: a lane's are first + k kChannelLanes, first = block kWidth + lane, k < kChannels ----

  // The lane's rows of angle_expand and torsion_expand, of one group of basis channels; 0 where there is nothing.
  SN_DEVICE void load_up(int first, int group, N (&up)[Num::kChannels][kCoefficients]) const {
    const GatedSumInputs<T>&in = call_.inputs, &tangents = call_.tangents;
#pragma unroll
    for (int k = 0; k < Num::kChannels; ++k) {
      const int c = first + k * Num::kChannelLanes;
      load_up_row(in.angle_expand, tangents.angle_expand, shape_.angle_size, c, group, &up[k][0]);
      load_up_row(in.torsion_expand, tangents.torsion_expand, shape_.torsion_size, c, group, &up[k][kRow]);
    }
  }
  SN_DEVICE void load_up_row(const T* value, const T* tangent, int size, int c, int group, N* to) const {
    if (sizes_.whole_up) {  // as vectors: the lanes of a team read one stretch of memory
      T row[kRow] = {}, row_tangent[kRow] = {};
      if (c < shape_.channels) {
        load_row(row, value + c * kRow);
        if (kDual && tangent) load_row(row_tangent, tangent + c * kRow);
      }
#pragma unroll
      for (int p = 0; p < kRow; ++p) to[p] = number_at<N>(row, row_tangent, p);
      return;
    }
#pragma unroll
    for (int p = 0; p < kRow; ++p)
      to[p] = c < shape_.channels && group * kRow + p < size
                  ? number_at<N>(value, tangent, int64_t(c) * size + group * kRow + p)
                  : N{};
  }

  // The lane's channels of row `edge` of x; 0 past the last one.
  SN_DEVICE void load_channels(int first, int64_t edge, N (&x)[Num::kChannels]) const {
#pragma unroll
    for (int k = 0; k < Num::kChannels; ++k) {
      const int c = first + k * Num::kChannelLanes;
      x[k] = c < shape_.channels ? number_at<N>(call_.inputs.x, call_.tangents.x, edge * shape_.channels + c) : N{};
    }
  }

  // What one group adds to the two filters of a pair.
  static SN_DEVICE void add_filters(const N* slot, const N (&up)[Num::kChannels][kCoefficients],
                                    N (&angle)[Num::kChannels], N (&torsion)[Num::kChannels]) {
    N row[kRow];
    load_row(row, slot);
    add_filter(row, up, 0, angle);
    load_row(row, slot + kRow);
    add_filter(row, up, kRow, torsion);
  }
  static SN_DEVICE void add_filter(const N (&row)[kRow], const N (&up)[Num::kChannels][kCoefficients], int first,
                                   N (&filter)[Num::kChannels]) {
#pragma unroll
    for (int k = 0; k < Num::kChannels; ++k)
#pragma unroll
      for (int p = 0; p < kRow; ++p) filter[k] += up[k][first + p] * row[p];
  }

  // The filters before any group is added: 0, or 1 where the filter is absent.
  SN_DEVICE void start_filters(N (&angle)[Num::kChannels], N (&torsion)[Num::kChannels]) const {
#pragma unroll
    for (int k = 0; k < Num::kChannels; ++k) {
      angle[k] = N{} + T(shape_.angle_size == 0);
      torsion[k] = N{} + T(shape_.torsion_size == 0);
    }
  }
};

// Zeros for the rows [in_ptr[N], num_edges) of an array [num_edges, size].
template <class T>
SN_DEVICE void clear_padding(const TileGraph& graph, int64_t num_edges, int size, T* array) {
  clear_tail<kThreads>(array, graph.in_ptr[graph.num_nodes] * size, num_edges * size);
}

}  // namespace spherenet::cuda
