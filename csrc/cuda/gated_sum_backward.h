// The gradients of the gated sum over tiles. On duals their tangents are the second derivatives.
//
// The tile is swept as for the value, the edges q outside. Channels go from grad_out to the gradients of x, of `up` and
// of the coefficients (here); pairs from those to the gradients of rows and directions (gated_sum_backward_triplets.h);
// rows to the gradients of weights and radial functions. Sums over pairs have one owner each, who adds in a fixed
// order: what a portion leaves unfinished waits in the result itself, which no other block touches.
#pragma once
#include "gated_sum_backward_triplets.h"

namespace spherenet::cuda {

// With at most eight basis channels a filter, the usual case, the rows of `up` stay in registers.
template <class T, bool kDual, bool kManyGroups>
class GatedSumBackward : public GatedSumBackwardPairs<T, kDual, kManyGroups> {
  using Base = GatedSumBackwardPairs<T, kDual, kManyGroups>;
  using Base::call_, Base::sizes_, Base::shape_, Base::memory_, Base::first_in_, Base::num_in_, Base::num_out_,
      Base::q0_, Base::nq_, Base::e0_, Base::ne_;
  using typename Base::N;
  using typename Base::Num;
  using Filters = N[Num::kChannels];
  using UpRows = N[Num::kChannels][kCoefficients];
  using UpSums = T[Num::kChannels][kCoefficients];
  static constexpr int kBatch = !kManyGroups ? 1 : Num::kBytes == 16 ? 2 : 4;  // edges e that share one load of `up`
  static constexpr int kWarpTeams = kWarp / Num::kChannelLanes;

  UpSums up_sums_;  // of the lane's channels, over all tiles if sums_remain()

 public:
  SN_DEVICE GatedSumBackward(const GatedSumCall<T>& call, const HarmonicTable<T>& table, const GatedSumSizes& sizes,
                             int64_t num_edges)
      : Base(call, table, sizes, num_edges) {
    clear_up_sums();
  }

  SN_DEVICE void run(int j) {
    this->open(j);
    this->clear_gradients(kManyGroups);
    for (int q0 = this->part_begin(0); q0 < this->part_begin(1); q0 += sizes_.neighbors) {
      this->open_neighbors(q0, this->part_begin(1));
      if (shape_.angle_size) {
        this->load_radial();
        if (!kManyGroups) this->open_rows(0);
      }
      for (int e0 = 0; e0 < num_out_; e0 += kEdges) {
        this->open_edges(e0, min(num_out_ - e0, kEdges));
        if (shape_.angle_size) {
          for (int group = 0; group < groups(); ++group) {
            if (kManyGroups) this->make_rows(group);
            this->make_coefficients(group);
            __syncthreads();
          }
        }
        channel_gradients();
        __syncthreads();
        if (!this->geometry() && !this->want_weights()) continue;
        for (int group = 0; group < groups(); ++group) {
          if (kManyGroups) this->open_rows(group);
          this->pair_gradients(group);
          __syncthreads();
          if (this->geometry()) this->direction_gradients(group);
          if (kManyGroups) this->close_rows(group, true);
          __syncthreads();
        }
      }
      if (!kManyGroups && (this->geometry() || this->want_weights())) this->close_rows(0, false);
      __syncthreads();  // the next q overwrite rows and radial functions
    }
  }

  SN_DEVICE void finish() {
    if (this->want_weights() && sums_remain()) add_up_sums(0, 0);
  }

 private:
  // Whether the lane's channels and coefficients are all there are.
  SN_DEVICE bool sums_remain() const { return sizes_.groups * sizes_.blocks == 1; }
  SN_DEVICE int groups() const { return kManyGroups ? sizes_.groups : 1; }

  // A team takes an edge q and runs over the portion's e.
  SN_DEVICE void channel_gradients() {
    const int team = threadIdx.x / Num::kChannelLanes, warp_team = threadIdx.x / kWarp * kWarpTeams;
    for (int block = 0; block < sizes_.blocks; ++block) {
      const int first = block * Num::kWidth + int(threadIdx.x) % Num::kChannelLanes;
      UpRows up;
      if (!kManyGroups) this->load_up(first, 0, up);
#pragma unroll 1
      for (int group = 0; group < groups(); ++group) {
        if (!sums_remain()) clear_up_sums();
#pragma unroll 1
        for (int q = team, warp_q = warp_team; warp_q < nq_; q += Num::kTeams, warp_q += Num::kTeams)
          neighbor_gradients(q, block, first, group, up);
        if (this->want_weights() && !sums_remain()) add_up_sums(block, group);
      }
    }
  }

  // Every lane of the warp comes along, also where the team's q is past the portion's end.
  SN_DEVICE void neighbor_gradients(int q, int block, int first, int group, UpRows& up) {
    const bool exists = q < nq_;
    Filters x;
    T grad_x[Num::kChannels] = {};
    this->load_channels(first, first_in_ + q0_ + (exists ? q : 0), x);
#pragma unroll 1
    for (int e = 0; e < ne_; e += kBatch) {
      Filters angle[kBatch], torsion[kBatch];
#pragma unroll
      for (int b = 0; b < kBatch; ++b) this->start_filters(angle[b], torsion[b]);
      if (kManyGroups) {
#pragma unroll 1
        for (int other = 0; other < groups(); ++other) {
          this->load_up(first, other, up);
#pragma unroll
          for (int b = 0; b < kBatch; ++b)
            if (is_triplet(q, e + b)) this->add_filters(this->slot(q, e + b, other), up, angle[b], torsion[b]);
        }
        this->load_up(first, group, up);
      }
#pragma unroll
      for (int b = 0; b < kBatch; ++b) {
        if (e + b >= ne_) continue;  // the whole block agrees
        channels_of_pair(q, e + b, block, first, group, up, x, angle[b], torsion[b], grad_x);
      }
    }
    if (!exists || group > 0) return;
    T* row = call_.grads.x + (first_in_ + q0_ + q) * shape_.channels;
#pragma unroll
    for (int k = 0; k < Num::kChannels; ++k) {
      const int c = first + k * Num::kChannelLanes;
      if (c < shape_.channels) row[c] = e0_ ? row[c] + grad_x[k] : grad_x[k];
    }
  }

  SN_DEVICE bool is_triplet(int q, int e) const { return q < nq_ && e < ne_ && memory_.opposite[e] != q0_ + q; }

  // One pair: angle and torsion are its filters (of one group, still without it).
  SN_DEVICE void channels_of_pair(int q, int e, int block, int first, int group, const UpRows& up, const Filters& x,
                                  Filters& angle, Filters& torsion, T (&grad_x)[Num::kChannels]) {
    const bool counts = is_triplet(q, e);
    N angle_row[kRow] = {}, torsion_row[kRow] = {};
    if (counts) {
      load_row(angle_row, this->slot(q, e, group));
      load_row(torsion_row, this->slot(q, e, group) + kRow);
      if (!kManyGroups) {
        this->add_filter(angle_row, up, 0, angle);
        this->add_filter(torsion_row, up, kRow, torsion);
      }
    }
    const T* grad_out = call_.grad_out + memory_.edge[e] * shape_.channels;
    Filters grad_angle, grad_torsion;
#pragma unroll
    for (int k = 0; k < Num::kChannels; ++k) {
      const int c = first + k * Num::kChannelLanes;
      const T grad = counts && c < shape_.channels ? grad_out[c] : T(0);
      add_output(grad_x[k], angle[k] * torsion[k], grad);
      const N along = x[k] * grad;
      grad_angle[k] = along * torsion[k];
      grad_torsion[k] = along * angle[k];
    }
    if (this->want_weights()) {
#pragma unroll
      for (int k = 0; k < Num::kChannels; ++k)
#pragma unroll
        for (int p = 0; p < kRow; ++p) {
          add_output(up_sums_[k][p], grad_angle[k], angle_row[p]);
          add_output(up_sums_[k][kRow + p], grad_torsion[k], torsion_row[p]);
        }
    }
    if (!this->geometry() && !this->want_weights()) return;
    N grads[kCoefficients] = {};
#pragma unroll
    for (int k = 0; k < Num::kChannels; ++k)
#pragma unroll
      for (int p = 0; p < kRow; ++p) {
        grads[p] += grad_angle[k] * up[k][p];
        grads[kRow + p] += grad_torsion[k] * up[k][kRow + p];
      }
    const int lane = threadIdx.x % Num::kChannelLanes;
    const N total = transposed_sum_over<Num::kChannelLanes>(grads, lane);
    __syncwarp();  // the sums may take the place of the coefficients that the team has just read
    if (q >= nq_ || lane >= kCoefficients) return;
    N& to = this->gradient_slot(q, e, group)[lane];
    to = block ? to + total : total;
  }

  // ---- gradients of `up` ----

  SN_DEVICE void clear_up_sums() {
#pragma unroll
    for (int k = 0; k < Num::kChannels; ++k)
#pragma unroll
      for (int i = 0; i < kCoefficients; ++i) up_sums_[k][i] = 0;
  }

  // up_sums_ of all teams, one warp after the other, to the block's row of weight gradients.
  SN_DEVICE void add_up_sums(int block, int group) {
    const int lane = threadIdx.x % kWarp;
    for (int warp = 0; warp < kWarps; ++warp) {
      if (int(threadIdx.x) / kWarp == warp) {
#pragma unroll
        for (int k = 0; k < Num::kChannels; ++k)
#pragma unroll
          for (int i = 0; i < kCoefficients; ++i) {
            T sum = up_sums_[k][i];
            if (kWarpTeams == 2) sum += shuffle_xor(sum, Num::kChannelLanes);
            if (lane >= Num::kChannelLanes) continue;
            T& to = memory_.up_sums[i * Num::kWidth + k * Num::kChannelLanes + lane];
            to = warp ? to + sum : sum;
          }
      }
      __syncthreads();
    }
    for (int item = threadIdx.x; item < kCoefficients * Num::kWidth; item += kThreads) {
      const int i = item / Num::kWidth, c = block * Num::kWidth + item % Num::kWidth;
      const bool angle = i < kRow;
      const int size = angle ? shape_.angle_size : shape_.torsion_size, p = group * kRow + i % kRow;
      if (c >= shape_.channels || p >= size) continue;
      const int64_t offset =
          shape_.angle_weight_size() + (angle ? 0 : shape_.angle_expand_size() + shape_.torsion_weight_size());
      this->weights()[offset + int64_t(c) * size + p] += memory_.up_sums[item];
    }
    __syncthreads();
  }
};

// Registers for 8 warps an SM: `up` and the sums of its gradients stay in them.
template <class T, bool kDual, bool kManyGroups>
__global__ void __launch_bounds__(kThreads, 2)
    gated_sum_backward_kernel(GatedSumCall<T> call, HarmonicTable<T> table, GatedSumSizes sizes, int64_t num_edges) {
  if (blockIdx.y == 0) {
    clear_padding(call.graph, num_edges, call.shape.channels, call.grads.x);
    if (call.grads.radial)
      clear_padding(call.graph, num_edges, call.shape.num_spherical * call.shape.num_radial, call.grads.radial);
    const int64_t pairs = call.graph.triplet_ptr[call.graph.num_nodes];
    for (int k = 0; call.grads.torsion && k < 2; ++k)
      clear_tail<kThreads>(call.grads.torsion + k * call.num_triplets, pairs, call.num_triplets);
  }
  if (call.grads.radial) {
    for (T* directions : {call.grads.direction_in, call.grads.direction_out})
      clear_padding(call.graph, num_edges, 3, directions + blockIdx.y * 3 * num_edges);
  }
  GatedSumBackward<T, kDual, kManyGroups> block(call, table, sizes, num_edges);
  for (int j = blockIdx.x; j < int(call.graph.num_nodes); j += gridDim.x) block.run(j);
  if (blockIdx.x < call.graph.num_nodes) block.finish();
}

}  // namespace spherenet::cuda
