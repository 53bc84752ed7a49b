// The gradients of the gated sum that belong to pairs and rows: harmonics, directions, weights, radial functions.
#pragma once
#include "gated_sum_tile.h"

namespace spherenet::cuda {

template <class T>
SN_DEVICE T shuffle_xor(const T& value, int mask) {
  return __shfl_xor_sync(kAllLanes, value, mask);
}
template <class T>
SN_DEVICE Dual<T> shuffle_xor(const Dual<T>& value, int mask) {
  return {shuffle_xor(value.value, mask), shuffle_xor(value.tangent, mask)};
}

// By value, since a choice between two structs in an array would put the array into memory.
template <class T>
SN_DEVICE T choose(bool first, T a, T b) {
  return first ? a : b;
}
template <class T>
SN_DEVICE Dual<T> choose(bool first, Dual<T> a, Dual<T> b) {
  return {choose(first, a.value, b.value), choose(first, a.tangent, b.tangent)};
}

// Sums of several values over lanes: every step halves what a lane holds. All lanes of the warp take part, and the
// order is fixed. Of each kCount lanes, lane i gets the sum of values[i] over them ..
template <int kCount, class N>
SN_DEVICE N transposed_sum(const N (&values)[kCount], int lane) {
  if constexpr (kCount == 1) {
    return values[0];
  } else {
    constexpr int kHalf = kCount / 2;
    const bool upper = lane & kHalf;
    N kept[kHalf];
#pragma unroll
    for (int i = 0; i < kHalf; ++i) {
      const N give = choose(upper, values[i], values[i + kHalf]);
      kept[i] = choose(upper, values[i + kHalf], values[i]) + shuffle_xor(give, kHalf);
    }
    return transposed_sum(kept, lane);
  }
}
// .. and of each kLanes >= kCount lanes, lane i gets that of values[i % kCount] over all of these.
template <int kLanes, int kCount, class N>
SN_DEVICE N transposed_sum_over(const N (&values)[kCount], int lane) {
  N sum = transposed_sum(values, lane);
#pragma unroll
  for (int mask = kCount; mask < kLanes; mask *= 2) sum = sum + shuffle_xor(sum, mask);
  return sum;
}

template <class T, bool kDual, bool kManyGroups>
class GatedSumBackwardPairs : public GatedSumBlock<T, kDual, kManyGroups> {
  using Base = GatedSumBlock<T, kDual, kManyGroups>;

 protected:
  using Base::call_, Base::sizes_, Base::shape_, Base::memory_, Base::table_, Base::first_in_, Base::num_in_,
      Base::num_out_, Base::q0_, Base::nq_, Base::e0_, Base::ne_;
  using typename Base::N;
  using typename Base::Num;
  static constexpr int kLanes = Num::kPairLanes;

  const int64_t num_edges_;

  SN_DEVICE GatedSumBackwardPairs(const GatedSumCall<T>& call, const HarmonicTable<T>& table,
                                  const GatedSumSizes& sizes, int64_t num_edges)
      : Base(call, table, sizes, SharedPieces(shared_memory), true), num_edges_(num_edges) {
    if (want_weights()) clear(weights(), shape_.weights_size());
  }

  // Whose gradients are asked for: radial functions and directions, or not; weights, or not. These and the following
  // are not kept, since registers are what this kernel lacks.
  SN_DEVICE bool geometry() const { return shape_.angle_size && call_.grads.radial; }
  SN_DEVICE bool want_weights() const { return shape_.angle_size && call_.grads.weights; }

  // The block's row of weight gradients.
  SN_DEVICE T* weights() const {
    return call_.grads.weights + (blockIdx.y * gridDim.x + blockIdx.x) * shape_.weights_size();
  }

  static SN_DEVICE void clear(T* array, int64_t size) {
    for (int64_t i = threadIdx.x; i < size; i += kThreads) array[i] = 0;
  }

  // The block has the edges q part_begin(0) .. part_begin(1) of its tiles.
  SN_DEVICE int part_begin(int next) const { return num_in_ * int(blockIdx.y + next) / int(gridDim.y); }

  // The part's rows of the tile's edges q, and of one edge e.
  SN_DEVICE T* direction_in() const { return call_.grads.direction_in + 3 * (blockIdx.y * num_edges_ + first_in_); }
  SN_DEVICE T* direction_out(int64_t edge) const {
    return call_.grads.direction_out + 3 * (blockIdx.y * num_edges_ + edge);
  }

  // What is summed over portions starts at 0.
  SN_DEVICE void clear_gradients(bool radial) {
    const int64_t first = first_in_ + part_begin(0), count = part_begin(1) - part_begin(0);
    if (num_out_ == 0) clear(call_.grads.x + first * shape_.channels, count * shape_.channels);
    if (!geometry()) return;
    const int lk = shape_.num_spherical * shape_.num_radial;
    if (radial) clear(call_.grads.radial + first * lk, count * lk);
    clear(direction_in(), 3 * num_in_);
    for (int i = threadIdx.x; i < 3 * num_out_; i += kThreads) direction_out(this->out_edge(i / 3))[i % 3] = 0;
  }

  // The rows of one group and, at 0, their gradients.
  SN_DEVICE void open_rows(int group) {
    for (int i = threadIdx.x; i < nq_ * sizes_.row_stride; i += kThreads) memory_.grad_rows[i] = N{};
    this->make_rows(group);
  }

  // ---- pairs ----

  // From the gradients of one group's coefficients to those of rows (added to grad_rows) and of the three directions,
  // which take the coefficients' place. Threads share pairs as in make_coefficients; here whole warps come along.
  SN_DEVICE void pair_gradients(int group) {
    this->with_pairs([&](auto pairs) { gradients_of<pairs>(group); });
  }
  template <int kPairs>
  SN_DEVICE void gradients_of(int group) {
    const int q = threadIdx.x / kLanes, lane = threadIdx.x % kLanes;
    if (int(threadIdx.x) / kWarp * kWarp / kLanes >= nq_) return;
    const int some_q = min(q, nq_ - 1);
    N angle[kPairs][kRow] = {}, torsion[kPairs][kRow] = {};  // gradients of coefficients; 0 past the portion's end
    SphericalPoint<N> point[kPairs], grad[kPairs] = {};
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      const int e = lane + i * kLanes;
      point[i] = this->point_of(some_q, min(e, ne_ - 1));
      if (q >= nq_ || e >= ne_) continue;
      load_row(angle[i], gradient_slot(q, e, group));
      load_row(torsion[i], gradient_slot(q, e, group) + kRow);
    }
    const int L = shape_.num_spherical, last_m = shape_.torsion_size ? L - 1 : 0;
    const N* rows = memory_.rows + some_q * sizes_.row_stride;
    N* grad_rows = q < nq_ && lane < kRow ? memory_.grad_rows + q * sizes_.row_stride + lane : nullptr;
    N cosine[kPairs] = {}, sine[kPairs] = {};
    for (int m = 0; m <= last_m; ++m) {
      LegendreColumn<N, T> column[kPairs], next_m[kPairs];  // the derivative of Q_lm is a multiple of Q_l,m+1
      N grad_cosine[kPairs] = {}, grad_sine[kPairs] = {}, last_cosine[kPairs], last_sine[kPairs];
#pragma unroll
      for (int i = 0; i < kPairs; ++i) {
        column[i] = LegendreColumn<N, T>::first(table_, m);
        next_m[i] = LegendreColumn<N, T>::first(table_, min(m + 1, kMaxSpherical - 1));
        last_cosine[i] = cosine[i];
        last_sine[i] = sine[i];
        this->turn(m, point[i], cosine[i], sine[i]);
      }
      for (int l = m; l < L; ++l) {
        N grad_legendre[kPairs] = {}, y[kPairs];
#pragma unroll
        for (int i = 0; i < kPairs; ++i) {
          if (l > m) column[i].next(table_, legendre_index(l, m), point[i].z);
          if (l > m + 1) next_m[i].next(table_, legendre_index(l, m + 1), point[i].z);
          y[i] = column[i].current;
        }
        if (m == 0) {
          N unit[kPairs];
#pragma unroll
          for (int i = 0; i < kPairs; ++i) unit[i] = N{} + T(1);
          harmonic_gradients(angle, rows, grad_rows, l, lane, y, unit, grad_legendre);
        }
        if (shape_.torsion_size) {
          harmonic_gradients(torsion, rows, grad_rows, L + l * l + m, lane, y, cosine, grad_legendre, &grad_cosine);
          if (m > 0)
            harmonic_gradients(torsion, rows, grad_rows, L + l * l + 2 * l + 1 - m, lane, y, sine, grad_legendre,
                               &grad_sine);
        }
        if (!geometry() || l == m) continue;
#pragma unroll
        for (int i = 0; i < kPairs; ++i)
          grad[i].z += grad_legendre[i] * next_m[i].current * table_.d[legendre_index(l, m)];
      }
      if (!geometry() || m == 0) continue;
#pragma unroll
      for (int i = 0; i < kPairs; ++i) {
        grad[i].re += (grad_cosine[i] * last_cosine[i] + grad_sine[i] * last_sine[i]) * T(m);
        grad[i].im += (grad_sine[i] * last_cosine[i] - grad_cosine[i] * last_sine[i]) * T(m);
      }
    }
    if (!geometry() || q >= nq_) return;
#pragma unroll
    for (int i = 0; i < kPairs; ++i)
      if (lane + i * kLanes < ne_) store_directions(q, lane + i * kLanes, group, grad[i]);
  }

  // One harmonic y = legendre turn, with turn = cos(m phi) sin(theta)^m or sin(m phi) sin(theta)^m: its row's gradient,
  // and what it adds to the gradients of legendre and of turn.
  template <int kPairs>
  SN_DEVICE void harmonic_gradients(const N (&coefficients)[kPairs][kRow], const N* rows, N* grad_rows, int row,
                                    int lane, const N (&legendre)[kPairs], const N (&turn)[kPairs],
                                    N (&grad_legendre)[kPairs], N (*grad_turn)[kPairs] = nullptr) {
    N sum[kRow] = {};
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      const N y = legendre[i] * turn[i];
#pragma unroll
      for (int p = 0; p < kRow; ++p) sum[p] += coefficients[i][p] * y;
    }
    const N total = transposed_sum_over<kLanes>(sum, lane);
    if (grad_rows) grad_rows[row * kRow] += total;
    if (!geometry()) return;
    N weights[kRow];
    load_row(weights, rows + row * kRow);
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      N grad_y{};
#pragma unroll
      for (int p = 0; p < kRow; ++p) grad_y += coefficients[i][p] * weights[p];
      grad_legendre[i] += grad_y * turn[i];
      if (grad_turn) (*grad_turn)[i] += grad_y * legendre[i];
    }
  }

  SN_DEVICE N* gradient_slot(int q, int e, int group) const {
    return memory_.grad_coefficients + (q * kEdges + e) * sizes_.slot + group * kCoefficients;
  }
  // Nine numbers in place of a pair's coefficients: the gradients of its neighbor, of the other one and of its axis.
  SN_DEVICE T* direction_slot(int q, int e, int group) const {
    return reinterpret_cast<T*>(gradient_slot(q, e, group));
  }

  SN_DEVICE void store_directions(int q, int e, int group, const SphericalPoint<N>& grad) {
    Triplet<N> triplet;
    TorsionKind<T> kind;
    memory_.source[q * kEdges + e] = this->gather_triplet(q, e, triplet, kind);
    triplet = triplet_point_vjp(shape_.angle_at_receiver, triplet, kind, grad);
    T* to = direction_slot(q, e, group);
    store(to, triplet.neighbor);
    store(to + 3, triplet.other);
    store(to + 6, triplet.axis);
    if (call_.grads.torsion) {
      add_group(group, call_.grads.torsion[this->pair(q, e)], output_of(grad.re));
      add_group(group, call_.grads.torsion[call_.num_triplets + this->pair(q, e)], output_of(grad.im));
    }
  }
  static SN_DEVICE void add_group(int group, T& to, T value) { to = group ? to + value : value; }
  static SN_DEVICE void store(T* to, const Vec3<N>& v) {
    to[0] = output_of(v.x);
    to[1] = output_of(v.y);
    to[2] = output_of(v.z);
  }

  // Sums of the portion's direction gradients, added to direction_in and direction_out. A neighbor n collects over its
  // own pairs and over all pairs that are measured to it: 16 lanes take it, a lane for each e.
  SN_DEVICE void direction_gradients(int group) {
    const int lane = threadIdx.x % kEdges;
    for (int first = 0; first < num_in_; first += kThreads / kEdges) {
      const int n = first + int(threadIdx.x) / kEdges, own = n - q0_;
      T sum[3] = {};
      if (lane < ne_ && n < num_in_) {
        if (own >= 0 && own < nq_) add_direction(sum, direction_slot(own, lane, group));
        for (int q = 0; q < nq_; ++q)
          if (memory_.source[q * kEdges + lane] == n) add_direction(sum, direction_slot(q, lane, group) + 3);
      }
#pragma unroll
      for (int mask = kEdges / 2; mask > 0; mask /= 2)
#pragma unroll
        for (int i = 0; i < 3; ++i) sum[i] += shuffle_xor(sum[i], mask);
      // Directions point to the center, neighbors' vectors away from it: hence the sign.
      if (lane == 0 && n < num_in_)
#pragma unroll
        for (int i = 0; i < 3; ++i) direction_in()[3 * n + i] -= sum[i];
    }
    for (int i = threadIdx.x; i < 3 * ne_; i += kThreads) {
      T sum = 0;
      for (int q = 0; q < nq_; ++q) sum += direction_slot(q, i / 3, group)[6 + i % 3];
      direction_out(memory_.edge[i / 3])[i % 3] += sum;
    }
  }
  static SN_DEVICE void add_direction(T (&sum)[3], const T* from) {
#pragma unroll
    for (int i = 0; i < 3; ++i) sum[i] += from[i];
  }

  // ---- rows ----

  // From the rows' gradients of one group to those of weights and radial functions; the latter are added to what is
  // there, or written.
  SN_DEVICE void close_rows(int group, bool add) {
    if (want_weights()) weight_gradients(group);
    if (geometry()) radial_gradients(group, add);
  }

  // A thread takes a row and a radial function, for eight basis channels: neighboring threads meet neighboring
  // weights.
  SN_DEVICE void weight_gradients(int group) {
    const int K = shape_.num_radial;
    for (int item = threadIdx.x; item < sizes_.rows * K; item += kThreads) {
      const int row = item / K, n = item % K;
      const FilterRow<T> filter = this->filter_row(row);
      T sum[kRow] = {};
      for (int q = 0; q < nq_; ++q) {
        const N radial = memory_.radial[(filter.order * K + n) * Num::kRadialStride + q];
        N grad[kRow];
        load_row(grad, memory_.grad_rows + q * sizes_.row_stride + row * kRow);
#pragma unroll
        for (int p = 0; p < kRow; ++p) add_output(sum[p], grad[p], radial);
      }
      const bool angle = row < shape_.num_spherical;
      T* to = weights() + (angle ? 0 : shape_.angle_weight_size() + shape_.angle_expand_size()) + filter.row * K + n;
#pragma unroll
      for (int p = 0; p < kRow; ++p)
        if (group * kRow + p < filter.size) to[int64_t(group * kRow + p) * filter.rows * K] += sum[p];
    }
  }

  // A thread takes two q and up to three radial functions of one order, and runs over the rows that meet this order.
  SN_DEVICE void radial_gradients(int group, bool add) {
    constexpr int kHalf = Num::kNeighbors / 2, kStep = 3;
    const int L = shape_.num_spherical, K = shape_.num_radial, steps = ceil_div(K, kStep);
    for (int item = threadIdx.x; item < kHalf * L * steps; item += kThreads) {
      const int q = item % kHalf, order = item / kHalf % L, first = item / (kHalf * L) * kStep;
      if (q >= nq_) continue;
      T sum[2][kStep] = {};
      add_radial(q, order, first, group, sum);
      if (shape_.torsion_size) {
        const int begin = shape_.dig ? order : order * order;
        const int end = shape_.dig ? L * L : (order + 1) * (order + 1);
        for (int h = begin; h < end; h += shape_.dig ? L : 1) add_radial(q, L + h, first, group, sum);
      }
#pragma unroll
      for (int half = 0; half < 2; ++half)
#pragma unroll
        for (int i = 0; i < kStep; ++i) {
          if (q + half * kHalf >= nq_ || first + i >= K) continue;
          T& to = call_.grads.radial[((first_in_ + q0_ + q + half * kHalf) * L + order) * K + first + i];
          to = add ? to + sum[half][i] : sum[half][i];
        }
    }
  }
  SN_DEVICE void add_radial(int q, int row, int first, int group, T (&sum)[2][3]) {
    const FilterRow<T> filter = this->filter_row(row);
    const int K = shape_.num_radial, other = min(q + Num::kNeighbors / 2, nq_ - 1);
    N grad[2][kRow];
    load_row(grad[0], memory_.grad_rows + q * sizes_.row_stride + row * kRow);
    load_row(grad[1], memory_.grad_rows + other * sizes_.row_stride + row * kRow);
#pragma unroll
    for (int p = 0; p < kRow; ++p)
#pragma unroll
      for (int i = 0; i < 3; ++i) {
        if (group * kRow + p >= filter.size || first + i >= K) continue;
        const N weight = number_at<N>(filter.weight, filter.tangent,
                                      (int64_t(group * kRow + p) * filter.rows + filter.row) * K + first + i);
        add_output(sum[0][i], grad[0][p], weight);
        add_output(sum[1][i], grad[1][p], weight);
      }
  }
};

}  // namespace spherenet::cuda
