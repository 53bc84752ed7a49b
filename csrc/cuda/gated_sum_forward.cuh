// The value of the gated sum over tiles. On duals its tangent: the gradient for grad_out in the double backward.
#pragma once
#include "gated_sum_tile.cuh"

namespace spherenet::cuda {

// kOneGroup: at most eight basis channels a factor, the usual case, which keeps the rows of `up` in registers.
template <class T, bool kDual, bool kOneGroup>
class GatedSumForward : public GatedSumBlock<T, kDual> {
  using Base = GatedSumBlock<T, kDual>;
  using typename Base::N;
  using typename Base::Num;
  using Base::call_, Base::sizes_, Base::shape_, Base::memory_, Base::first_in_, Base::num_in_, Base::num_out_,
      Base::q0_, Base::nq_, Base::ne_;
  static constexpr int kTeamEdges = kEdges / Num::kTeams;  // edges e of a team: team, team + kTeams, ..

 public:
  SN_DEVICE GatedSumForward(const GatedSumCall<T>& call, const HarmonicTable<T>& table, const GatedSumSizes& sizes)
      : Base(call, table, sizes, SharedPieces(shared_memory), false) {}

  // The edges out(j)[num_out part / parts .. num_out (part + 1) / parts).
  SN_DEVICE void run(int64_t j, int part, int parts) {
    this->open(j);
    const int end = int(int64_t(num_out_) * (part + 1) / parts);
    for (int e0 = int(int64_t(num_out_) * part / parts); e0 < end; e0 += kEdges) {
      this->open_edges(e0, min(end - e0, kEdges));
      T sum[kTeamEdges][Num::kChannels] = {};
      if (num_in_ == 0) store_sums(sum);
      for (int q0 = 0; q0 < num_in_; q0 += sizes_.neighbors) {
        this->open_neighbors(q0);
        if (shape_.angle_size) {
          this->load_radial();
          for (int group = 0; group < sizes_.groups; ++group) {
            this->make_rows(group);
            this->make_coefficients(group);
            __syncthreads();
          }
        }
        add_messages(sum);
        __syncthreads();  // the next chunk overwrites the coefficients
      }
    }
  }

 private:
  // The chunk's q, for all channels. One block of channels is summed in registers, more are in memory in between.
  SN_DEVICE void add_messages(T (&sum)[kTeamEdges][Num::kChannels]) {
    const bool last = q0_ + nq_ == num_in_;
    for (int block = 0; block < sizes_.blocks; ++block) {
      if (sizes_.blocks > 1) {
        for_each_sum(block, [&](int i, int k, T& out) { sum[i][k] = q0_ ? out : T(0); });
      }
      add_channels(block * Num::kWidth + lane(), sum);
      if (sizes_.blocks > 1 || last) {
        for_each_sum(block, [&](int i, int k, T& out) { out = sum[i][k]; });
      }
    }
  }
  SN_DEVICE void store_sums(const T (&sum)[kTeamEdges][Num::kChannels]) {
    for (int block = 0; block < sizes_.blocks; ++block)
      for_each_sum(block, [&](int i, int k, T& out) { out = sum[i][k]; });
  }

  static SN_DEVICE int lane() { return threadIdx.x % Num::kChannelLanes; }
  static SN_DEVICE int edge_of(int i) { return threadIdx.x / Num::kChannelLanes + i * Num::kTeams; }

  // f(i, k, out[e, c]) for the team's edges and the lane's channels.
  template <class F>
  SN_DEVICE void for_each_sum(int block, const F& f) {
#pragma unroll
    for (int i = 0; i < kTeamEdges; ++i) {
      if (edge_of(i) >= ne_) continue;
      T* row = call_.out + memory_.edge[edge_of(i)] * shape_.channels;
#pragma unroll
      for (int k = 0; k < Num::kChannels; ++k) {
        const int c = block * Num::kWidth + lane() + k * Num::kChannelLanes;
        if (c < shape_.channels) f(i, k, row[c]);
      }
    }
  }

  SN_DEVICE void add_channels(int first, T (&sum)[kTeamEdges][Num::kChannels]) {
    using Factors = N[Num::kChannels];
    N up[Num::kChannels][kCoefficients];
    if constexpr (kOneGroup) {
      this->load_up(first, 0, up);
#pragma unroll 1
      for (int q = 0; q < nq_; ++q) {
        Factors x;
        this->load_channels(first, first_in_ + q0_ + q, x);
#pragma unroll
        for (int i = 0; i < kTeamEdges; ++i) {
          if (!is_triplet(q, i)) continue;
          Factors angle, torsion;
          this->start_factors(angle, torsion);
          this->add_factors(this->slot(q, edge_of(i), 0), up, angle, torsion);
          add_message(angle, torsion, x, sum[i]);
        }
      }
    } else {
      constexpr int kBatch = 4 / kTeamEdges;  // edges q that share one load of `up`
#pragma unroll 1
      for (int q = 0; q < nq_; q += kBatch) {
        Factors angle[kBatch][kTeamEdges], torsion[kBatch][kTeamEdges];
#pragma unroll
        for (int pair = 0; pair < 4; ++pair)
          this->start_factors(angle[pair / kTeamEdges][pair % kTeamEdges], torsion[pair / kTeamEdges][pair % kTeamEdges]);
#pragma unroll 1
        for (int group = 0; group < sizes_.groups; ++group) {
          this->load_up(first, group, up);
#pragma unroll
          for (int b = 0; b < kBatch; ++b)
#pragma unroll
            for (int i = 0; i < kTeamEdges; ++i)
              if (is_triplet(q + b, i))
                this->add_factors(this->slot(q + b, edge_of(i), group), up, angle[b][i], torsion[b][i]);
        }
#pragma unroll
        for (int b = 0; b < kBatch; ++b) {
          if (q + b >= nq_) continue;
          Factors x;
          this->load_channels(first, first_in_ + q0_ + q + b, x);
#pragma unroll
          for (int i = 0; i < kTeamEdges; ++i)
            if (is_triplet(q + b, i)) add_message(angle[b][i], torsion[b][i], x, sum[i]);
        }
      }
    }
  }

  SN_DEVICE bool is_triplet(int q, int i) const {
    return q < nq_ && edge_of(i) < ne_ && memory_.opposite[edge_of(i)] != q0_ + q;
  }

  static SN_DEVICE void add_message(const N (&angle)[Num::kChannels], const N (&torsion)[Num::kChannels],
                                    const N (&x)[Num::kChannels], T (&sum)[Num::kChannels]) {
#pragma unroll
    for (int k = 0; k < Num::kChannels; ++k) add_output(sum[k], angle[k] * torsion[k], x[k]);
  }
};

// Registers for 16 warps an SM at four bytes a number, for 8 where numbers are wider or several groups meet.
template <class T, bool kDual, bool kOneGroup>
__global__ void __launch_bounds__(kThreads, sizeof(T) == 4 && !kDual && kOneGroup ? 4 : 2)
    gated_sum_forward_kernel(GatedSumCall<T> call, HarmonicTable<T> table, GatedSumSizes sizes, int64_t num_edges,
                             int parts) {
  clear_padding(call.graph, num_edges, call.shape.channels, call.out);
  GatedSumForward<T, kDual, kOneGroup> block(call, table, sizes);
  for (int64_t unit = blockIdx.x; unit < call.graph.num_nodes * parts; unit += gridDim.x)
    block.run(unit / parts, int(unit % parts), parts);
}

}  // namespace spherenet::cuda
