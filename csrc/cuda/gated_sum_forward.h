// The value of the gated sum over tiles. On duals its tangent: the gradient for grad_out in the double backward.
#pragma once
#include "gated_sum_tile.h"

namespace spherenet::cuda {

// How the coefficients of a pair become its filters.
enum class Expansion {
  kOneGroup,  // at most eight basis channels a filter, the usual case: the rows of `up` stay in registers
  kManyGroups,
  kTensorCores,  // in TF32: 16 pairs by 8 basis channels times 8 basis channels by 8 channels
};

template <class T, bool kDual, Expansion kExpansion>
class GatedSumForward : public GatedSumBlock<T, kDual, kExpansion == Expansion::kManyGroups> {
  using Base = GatedSumBlock<T, kDual, kExpansion == Expansion::kManyGroups>;
  using Base::call_, Base::sizes_, Base::shape_, Base::memory_, Base::first_in_, Base::num_in_, Base::num_out_,
      Base::q0_, Base::nq_, Base::ne_;
  using typename Base::N;
  using typename Base::Num;
  static constexpr bool kTensorCores = kExpansion == Expansion::kTensorCores;
  static constexpr int kTeamEdges = kEdges / Num::kTeams;  // edges e of a lane
  using Filters = N[Num::kChannels];

 public:
  SN_DEVICE GatedSumForward(const GatedSumCall<T>& call, const HarmonicTable<T>& table, const GatedSumSizes& sizes)
      : Base(call, table, sizes, SharedPieces(shared_memory), false) {}

  // The edges out(j)[num_out part / parts .. num_out (part + 1) / parts).
  SN_DEVICE void run(int j, int part, int parts) {
    this->open(j);
    const int end = int(int64_t(num_out_) * (part + 1) / parts);
    for (int e0 = int(int64_t(num_out_) * part / parts); e0 < end; e0 += kEdges) {
      this->open_edges(e0, min(end - e0, kEdges));
      T sum[kTeamEdges][Num::kChannels] = {};
      if (num_in_ == 0) store_sums(sum);
      for (int q0 = 0; q0 < num_in_; q0 += sizes_.neighbors) {
        this->open_neighbors(q0, num_in_);
        if (shape_.angle_size) {
          this->load_radial();
          for (int group = 0; group < sizes_.groups; ++group) {
            this->make_rows(group);
            this->template make_coefficients<kTensorCores>(group);
            __syncthreads();
          }
        }
        add_messages(sum);
        __syncthreads();  // the next portion overwrites the coefficients
      }
    }
  }

 private:
  // A lane's share of [edges e, channels]: edge_of(i) and channel_of(block, k), by teams or as tensor cores have it.
  static SN_DEVICE int edge_of(int i) {
    return kTensorCores ? int(threadIdx.x) % kWarp / 4 + i * 8
                        : int(threadIdx.x) / Num::kChannelLanes + i * Num::kTeams;
  }
  static SN_DEVICE int channel_of(int block, int k) {
    const int within = kTensorCores ? int(threadIdx.x) / kWarp * 16 + k / 2 * 8 + int(threadIdx.x) % 4 * 2 + k % 2
                                    : int(threadIdx.x) % Num::kChannelLanes + k * Num::kChannelLanes;
    return block * Num::kWidth + within;
  }

  // The portion's q, for all channels. One block of channels is summed in registers, more are in memory in between.
  SN_DEVICE void add_messages(T (&sum)[kTeamEdges][Num::kChannels]) {
    const bool last = q0_ + nq_ == num_in_;
    for (int block = 0; block < sizes_.blocks; ++block) {
      if (sizes_.blocks > 1) {
        for_each_sum(block, [&](int i, int k, T& out) { sum[i][k] = q0_ ? out : T(0); });
      }
      if constexpr (kExpansion == Expansion::kOneGroup) {
        add_one_group(block, sum);
      } else if constexpr (kExpansion == Expansion::kManyGroups) {
        add_many_groups(block, sum);
      } else {
        add_on_tensor_cores(block, sum);
      }
      if (sizes_.blocks > 1 || last) {
        for_each_sum(block, [&](int i, int k, T& out) { out = sum[i][k]; });
      }
    }
  }
  SN_DEVICE void store_sums(const T (&sum)[kTeamEdges][Num::kChannels]) {
    for (int block = 0; block < sizes_.blocks; ++block)
      for_each_sum(block, [&](int i, int k, T& out) { out = sum[i][k]; });
  }

  // f(i, k, out[edge_of(i), channel_of(block, k)])
  template <class F>
  SN_DEVICE void for_each_sum(int block, const F& f) {
#pragma unroll
    for (int i = 0; i < kTeamEdges; ++i) {
      if (edge_of(i) >= ne_) continue;
      T* row = call_.out + memory_.edge[edge_of(i)] * shape_.channels;
#pragma unroll
      for (int k = 0; k < Num::kChannels; ++k) {
        const int c = channel_of(block, k);
        if (c < shape_.channels) f(i, k, row[c]);
      }
    }
  }

  SN_DEVICE void add_one_group(int block, T (&sum)[kTeamEdges][Num::kChannels]) {
    N up[Num::kChannels][kCoefficients];
    this->load_up(channel_of(block, 0), 0, up);
#pragma unroll 1
    for (int q = 0; q < nq_; ++q) {
      Filters x;
      load_x(q, block, x);
#pragma unroll
      for (int i = 0; i < kTeamEdges; ++i) {
        if (!is_triplet(q, i)) continue;
        Filters angle, torsion;
        this->start_filters(angle, torsion);
        this->add_filters(this->slot(q, edge_of(i), 0), up, angle, torsion);
        add_message(angle, torsion, x, sum[i]);
      }
    }
  }

  SN_DEVICE void add_many_groups(int block, T (&sum)[kTeamEdges][Num::kChannels]) {
    constexpr int kBatch = 4 / kTeamEdges;  // edges q that share one load of `up`
    N up[Num::kChannels][kCoefficients];
#pragma unroll 1
    for (int q = 0; q < nq_; q += kBatch) {
      Filters angle[kBatch][kTeamEdges], torsion[kBatch][kTeamEdges];
#pragma unroll
      for (int b = 0; b < kBatch; ++b)
#pragma unroll
        for (int i = 0; i < kTeamEdges; ++i) this->start_filters(angle[b][i], torsion[b][i]);
#pragma unroll 1
      for (int group = 0; group < sizes_.groups; ++group) {
        this->load_up(channel_of(block, 0), group, up);
#pragma unroll
        for (int b = 0; b < kBatch; ++b)
#pragma unroll
          for (int i = 0; i < kTeamEdges; ++i)
            if (is_triplet(q + b, i))
              this->add_filters(this->slot(q + b, edge_of(i), group), up, angle[b][i], torsion[b][i]);
      }
#pragma unroll
      for (int b = 0; b < kBatch; ++b) {
        if (q + b >= nq_) continue;
        Filters x;
        load_x(q + b, block, x);
#pragma unroll
        for (int i = 0; i < kTeamEdges; ++i)
          if (is_triplet(q + b, i)) add_message(angle[b][i], torsion[b][i], x, sum[i]);
      }
    }
  }

  // The portion's 16 edges e are the rows, and each warp takes 16 of the block's channels. Every warp reads all
  // coefficients.
  SN_DEVICE void add_on_tensor_cores(int block, float (&sum)[2][4]) {
    const int g = int(threadIdx.x) % kWarp / 4, t = int(threadIdx.x) % 4;
    float up[2][2][2];  // [filter, half of the channels, half of the basis channels]
    if (sizes_.groups == 1) load_up_columns(block, 0, up);
#pragma unroll 1
    for (int q = 0; q < nq_; ++q) {
      __syncwarp(kAllLanes);  // tensor cores take whole warps; the last q left some lanes behind
      float filter[2][2][4];
#pragma unroll
      for (int half = 0; half < 2; ++half) this->start_filters(filter[0][half], filter[1][half]);
      for (int group = 0; group < sizes_.groups; ++group) {
        if (sizes_.groups > 1) load_up_columns(block, group, up);
#pragma unroll
        for (int f = 0; f < 2; ++f) {
          const float *upper = this->slot(q, g, group) + f * kRow, *lower = this->slot(q, g + 8, group) + f * kRow;
          const float coefficients[4] = {upper[t], lower[t], upper[t + 4], lower[t + 4]};
#pragma unroll
          for (int half = 0; half < 2; ++half) add_product(filter[f][half], coefficients, up[f][half]);
        }
      }
      Filters x;
      load_x(q, block, x);
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        if (!is_triplet(q, i)) continue;
#pragma unroll
        for (int k = 0; k < 4; ++k)
          sum[i][k] += filter[0][k / 2][2 * i + k % 2] * filter[1][k / 2][2 * i + k % 2] * x[k];
      }
    }
  }

  // What tensor cores take of angle_expand and torsion_expand: basis channels t and t + 4 of two channels.
  SN_DEVICE void load_up_columns(int block, int group, float (&up)[2][2][2]) const {
    const int g = int(threadIdx.x) % kWarp / 4, t = int(threadIdx.x) % 4;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int c = block * Num::kWidth + int(threadIdx.x) / kWarp * 16 + half * 8 + g;
#pragma unroll
      for (int k = 0; k < 2; ++k) {
        const int p = group * kRow + t + 4 * k;
        const bool exists = c < shape_.channels;
        const int angle = shape_.angle_size, torsion = shape_.torsion_size;
        up[0][half][k] = exists && p < angle ? round_to_tf32(call_.inputs.angle_expand[int64_t(c) * angle + p]) : 0.0f;
        up[1][half][k] =
            exists && p < torsion ? round_to_tf32(call_.inputs.torsion_expand[int64_t(c) * torsion + p]) : 0.0f;
      }
    }
  }

  SN_DEVICE void load_x(int q, int block, Filters& x) const {
    const int64_t row = (first_in_ + q0_ + q) * shape_.channels;
#pragma unroll
    for (int k = 0; k < Num::kChannels; ++k) {
      const int c = channel_of(block, k);
      x[k] = c < shape_.channels ? number_at<N>(call_.inputs.x, call_.tangents.x, row + c) : N{};
    }
  }

  SN_DEVICE bool is_triplet(int q, int i) const {
    return q < nq_ && edge_of(i) < ne_ && memory_.opposite[edge_of(i)] != q0_ + q;
  }

  static SN_DEVICE void add_message(const Filters& angle, const Filters& torsion, const Filters& x,
                                    T (&sum)[Num::kChannels]) {
#pragma unroll
    for (int k = 0; k < Num::kChannels; ++k) add_output(sum[k], angle[k] * torsion[k], x[k]);
  }
};

// Registers for 16 warps an SM at four bytes a number, for 8 where numbers are wider or many groups meet.
template <class T, bool kDual, Expansion kExpansion>
__global__ void __launch_bounds__(kThreads, sizeof(T) == 4 && !kDual && kExpansion != Expansion::kManyGroups ? 4 : 2)
    gated_sum_forward_kernel(GatedSumCall<T> call, HarmonicTable<T> table, GatedSumSizes sizes, int64_t num_edges,
                             int parts) {
  clear_padding(call.graph, num_edges, call.shape.channels, call.out);
  GatedSumForward<T, kDual, kExpansion> block(call, table, sizes);
  for (int64_t unit = blockIdx.x; unit < call.graph.num_nodes * parts; unit += gridDim.x)
    block.run(int(unit / parts), int(unit % parts), parts);
}

}  // namespace spherenet::cuda
