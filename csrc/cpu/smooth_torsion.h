// The smooth torsion of all triplets of a tile in(j) x out(j), with lanes over the edges out of the center. For one
// instruction set.
#pragma once
#include <algorithm>
#include <cstring>

#include "../math/smooth_torsion.h"
#include "dual_simd.h"
#include "kernel.h"
#include "scratch.h"

namespace spherenet {
namespace SN_ISA {

template <class T, Pass kPass>
class SmoothTorsionTile {
  static constexpr bool kDual = kPass == Pass::kDoubleBackward, kVjp = kPass != Pass::kForward;
  using Num = Numbers<T, kDual>;
  using V = typename Num::V;
  using N = typename Num::N;
  using S = typename Num::S;
  static constexpr int W = kLanes<T>;

  const SmoothTorsionCall<T>& call_;
  ScratchMemory memory_;
  Vec3<N>* direction_;           // [in]  unit vectors from j
  N* fade_;                      // [in]
  T* grad_direction_;            // [in, 3]
  T* grad_fade_;                 // [in]
  V* present_;                   // [in]  1 where the neighbor is not the other end of the lane's edge, else 0
  AcrossComponents<S>* across_;  // [in]  about the axes of the present block of edges, as all that follows
  BlendNeighbor<S>* neighbor_;   // [in]
  BlendNeighbor<S>* grad_;       // [in]
  BlendTerm<S>* term_;           // [in]  of the present q

  // The current tile.
  int64_t first_in_, num_in_, first_triplet_, num_out_;
  const int64_t* out_edges_;  // [num_out_]
  int64_t block_;             // edges block_ .. block_ + lanes_ out of the center
  int lanes_;
  Vec3<S> axis_;
  AcrossFrame<S> frame_;

 public:
  SmoothTorsionTile(const SmoothTorsionCall<T>& call, int64_t most_in) : call_(call) {
    memory_.build([&](ScratchMemory& memory) {
      direction_ = memory.take<Vec3<N>>(most_in);
      fade_ = memory.take<N>(most_in);
      grad_direction_ = memory.take<T>(3 * most_in);
      grad_fade_ = memory.take<T>(most_in);
      present_ = memory.take<V>(most_in);
      across_ = memory.take<AcrossComponents<S>>(most_in);
      neighbor_ = memory.take<BlendNeighbor<S>>(most_in);
      grad_ = memory.take<BlendNeighbor<S>>(most_in);
      term_ = memory.take<BlendTerm<S>>(most_in);
    });
  }

  void run(int64_t j) {
    const TileGraph& graph = call_.graph;
    first_in_ = graph.in_ptr[j];
    num_in_ = graph.in_ptr[j + 1] - first_in_;
    out_edges_ = graph.out_edge + graph.out_ptr[j];
    num_out_ = graph.out_ptr[j + 1] - graph.out_ptr[j];
    first_triplet_ = graph.triplet_ptr[j];
    for (int64_t n = 0; n < num_in_; ++n) {
      direction_[n] = vector(first_in_ + n, T(-1));
      fade_[n] = number_at<N>(call_.fade, call_.fade_tangent, first_in_ + n);
    }
    if (kVjp) {
      std::fill(grad_direction_, grad_direction_ + 3 * num_in_, T(0));
      std::fill(grad_fade_, grad_fade_ + num_in_, T(0));
    }
    for (block_ = 0; block_ < num_out_; block_ += W) {
      open_block();
      for (int64_t q = 0; q < num_in_; ++q) neighbor(q);
      if (kVjp) close_block();
    }
    if (!kVjp) return;
    // Directions point to the center, neighbors' vectors away from it: hence the sign.
    for (int64_t i = 0; i < 3 * num_in_; ++i) call_.grad_direction_in[3 * first_in_ + i] = -grad_direction_[i];
    std::copy(grad_fade_, grad_fade_ + num_in_, call_.grad_fade + first_in_);
  }

 private:
  Vec3<N> vector(int64_t edge, T sign) const {
    const T *d = call_.direction, *t = call_.direction_tangent;
    return {number_at<N>(d, t, 3 * edge) * sign, number_at<N>(d, t, 3 * edge + 1) * sign,
            number_at<N>(d, t, 3 * edge + 2) * sign};
  }

  void open_block() {
    lanes_ = int(std::min<int64_t>(num_out_ - block_, W));
    for (int i = 0; i < W; ++i) {
      // Lanes past the last edge repeat it: their numbers are finite and never used.
      const Vec3<N> axis = vector(out_edges_[block_ + std::min(i, lanes_ - 1)], T(1));
      const AcrossFrame<N> frame = frame_across(axis);
      set_lane(axis_, i, axis);
      set_lane(frame_.first, i, frame.first);
      set_lane(frame_.second, i, frame.second);
    }
    for (int64_t n = 0; n < num_in_; ++n) present_[n] = V{} + T(1);
    for (int i = 0; i < W; ++i) {
      const int64_t n = call_.graph.rev[out_edges_[block_ + std::min(i, lanes_ - 1)]] - first_in_;
      if (n >= 0 && n < num_in_) present_[n][i] = 0;
    }
    for (int64_t n = 0; n < num_in_; ++n) {
      across_[n] = {dot_lanes(direction_[n], frame_.first), dot_lanes(direction_[n], frame_.second)};
      neighbor_[n] = blend_neighbor(across_[n], fade_[n] * present_[n]);
      if (kVjp) grad_[n] = BlendNeighbor<S>{};
    }
  }

  // re and im of the triplets (q, e) for the edges e of the block, and what their cotangents give.
  void neighbor(int64_t q) {
    BlendSums<S> sums{S{} + T(kBlendEpsilon), S{}, S{}};
    for (int64_t n = 0; n < num_in_; ++n) {
      if (n == q) continue;
      const BlendTerm<S> term = blend_term(call_.even, neighbor_[q], neighbor_[n]);
      sums.add(term);
      if (kVjp) term_[n] = term;
    }
    const int64_t slot = first_triplet_ + q * num_out_ + block_;
    if (kPass != Pass::kBackward) {
      const AcrossComponents<S> point = blend_point(neighbor_[q], sums);
      store(output_of(point.a * present_[q]), call_.torsion + slot);
      store(output_of(point.b * present_[q]), call_.torsion + call_.num_triplets + slot);
    }
    if (!kVjp) return;
    const V re = load(call_.grad_torsion + slot) * present_[q];
    const V im = load(call_.grad_torsion + call_.num_triplets + slot) * present_[q];
    S grad_length;
    const BlendSums<S> grad = blend_point_vjp(neighbor_[q], sums, {S{} + re, S{} + im}, grad_length);
    BlendNeighbor<S> grad_q = grad_[q];
    grad_q.length += grad_length;
    for (int64_t n = 0; n < num_in_; ++n)
      if (n != q) blend_term_vjp(call_.even, neighbor_[q], neighbor_[n], term_[n], grad, grad_q, grad_[n]);
    grad_[q] = grad_q;
  }

  void close_block() {
    Vec3<S> grad_axis{S{}, S{}, S{}};
    for (int64_t n = 0; n < num_in_; ++n) {
      S grad_fade;
      const auto grad = blend_neighbor_vjp(across_[n], fade_[n] * present_[n], grad_[n], grad_fade);
      const Vec3<S> neighbor{S{} + direction_[n].x, S{} + direction_[n].y, S{} + direction_[n].z};
      Vec3<S> grad_neighbor;
      across_vjp(frame_, axis_, neighbor, grad, grad_neighbor, grad_axis);
      const V parts[3] = {output_of(grad_neighbor.x), output_of(grad_neighbor.y), output_of(grad_neighbor.z)};
      const V of_fade = output_of(grad_fade) * present_[n];
      for (int i = 0; i < lanes_; ++i) {
        for (int k = 0; k < 3; ++k) grad_direction_[3 * n + k] += parts[k][i];
        grad_fade_[n] += of_fade[i];
      }
    }
    const V parts[3] = {output_of(grad_axis.x), output_of(grad_axis.y), output_of(grad_axis.z)};
    for (int i = 0; i < lanes_; ++i)
      for (int k = 0; k < 3; ++k) call_.grad_direction_out[3 * out_edges_[block_ + i] + k] = parts[k][i];
  }

  static S dot_lanes(const Vec3<N>& one, const Vec3<S>& lanes) {
    return lanes.x * one.x + lanes.y * one.y + lanes.z * one.z;
  }
  static void set_lane(Vec3<S>& lanes, int i, const Vec3<N>& v) {
    Num::set_lane(lanes.x, i, v.x);
    Num::set_lane(lanes.y, i, v.y);
    Num::set_lane(lanes.z, i, v.z);
  }
  V load(const T* from) const { return load_lanes<T>(from, lanes_); }
  void store(const V& lanes, T* to) const { store_lanes<T>(lanes, to, lanes_); }
};

template <class T, Pass kPass>
void smooth_torsion_tiles(const SmoothTorsionCall<T>& call, int64_t begin, int64_t end) {
  int64_t most_in = 0;
  for (int64_t j = begin; j < end; ++j) most_in = std::max(most_in, call.graph.in_ptr[j + 1] - call.graph.in_ptr[j]);
  SmoothTorsionTile<T, kPass> tile(call, most_in);
  for (int64_t j = begin; j < end; ++j) tile.run(j);
}

template <class T>
void smooth_torsion(const SmoothTorsionCall<T>& call, Pass pass, int64_t begin, int64_t end) {
  switch (pass) {
    case Pass::kForward:
      return smooth_torsion_tiles<T, Pass::kForward>(call, begin, end);
    case Pass::kBackward:
      return smooth_torsion_tiles<T, Pass::kBackward>(call, begin, end);
    case Pass::kDoubleBackward:
      return smooth_torsion_tiles<T, Pass::kDoubleBackward>(call, begin, end);
  }
}

}  // namespace SN_ISA
}  // namespace spherenet

SN_KERNEL(void, smooth_torsion, SmoothTorsionCall, (Pass pass, int64_t begin, int64_t end), (pass, begin, end))
