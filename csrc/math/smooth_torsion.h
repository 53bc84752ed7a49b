// The smooth torsion of a triplet k -> j -> i: in place of the one next neighbor a blend of all, in which each fades
// out as it leaves, becomes collinear with the edge, or is overtaken.
//
// In a frame across the axis of e = j -> i, neighbor q has the components (a_q, b_q), s_q = |(a_q, b_q)|, and
//
//   re + i im = sqrt(s_q^2 + eta^2) sum_n w_n (x_n + i y_n) / (epsilon + sum_n w_n)
//   x_n + i y_n = conj(a_q + i b_q) (a_n + i b_n) / sqrt((s_q^2 + eta^2) (s_n^2 + eta^2))
//   w_n = fade_n s_n^2 (1 - x_n) exp(kappa (lead_n - 1))
//
// over n neither q nor the reverse of e; lead = y, or x for a torsion that is even under reflection.
// x + i y is exp(i (alpha_n - alpha_q)) but near the axis, where eta makes it go to 0: no angle, no pole, no choice,
// and derivatives of all orders.
#pragma once
#include "../kernels.h"
#include "silu.h"
#include "vec3.h"

namespace spherenet {

constexpr double kBlendEpsilon = 1e-3;
constexpr double kBlendEtaSquare = 1e-2;
constexpr double kBlendKappa = 2;

template <class T>
SN_HD Dual<T> exponential(const Dual<T>& x) {
  const T e = exponential(x.value);
  return {e, e * x.tangent};
}

// Two vectors of length 1 across an axis, which make a right-handed frame with it. Which of all such frames it is does
// not matter: what is made of the components in it is the same in all.
template <class S>
struct AcrossFrame {
  Vec3<S> first, second;
};
template <class S>
struct AcrossComponents {
  S a, b;
};

// Of the axis, of any length: starts from the coordinate axis that is least along it.
template <class T, if_not_dual<T> = 0>
SN_HD AcrossFrame<T> frame_across(const Vec3<T>& axis) {
  const T x = std::fabs(axis.x), y = std::fabs(axis.y), z = std::fabs(axis.z);
  const Vec3<T> start = x <= y && x <= z ? Vec3<T>{1, 0, 0} : y <= z ? Vec3<T>{0, 1, 0} : Vec3<T>{0, 0, 1};
  const T inverse_square = 1 / dot(axis, axis);
  const Vec3<T> across = start - (dot(start, axis) * inverse_square) * axis;
  const Vec3<T> first = reciprocal_sqrt(dot(across, across)) * across;
  return {first, std::sqrt(inverse_square) * cross(axis, first)};
}
// The tangent is that of a frame that follows the axis: while it turns by d, first moves by -(first.d) axis / |axis|^2.
template <class T>
SN_HD AcrossFrame<Dual<T>> frame_across(const Vec3<Dual<T>>& axis) {
  const Vec3<T> value{axis.x.value, axis.y.value, axis.z.value}, moved{axis.x.tangent, axis.y.tangent, axis.z.tangent};
  const AcrossFrame<T> frame = frame_across(value);
  const T inverse_square = 1 / dot(value, value);
  const auto followed = [&](const Vec3<T>& v) -> Vec3<Dual<T>> {
    const Vec3<T> tangent = (-dot(v, moved) * inverse_square) * value;
    return {{v.x, tangent.x}, {v.y, tangent.y}, {v.z, tangent.z}};
  };
  return {followed(frame.first), followed(frame.second)};
}

// The cotangents of a neighbor's direction and of the axis, which the frame follows, from those of its components.
template <class S>
SN_HD void across_vjp(const AcrossFrame<S>& frame, const Vec3<S>& axis, const Vec3<S>& neighbor,
                      const AcrossComponents<S>& grad, Vec3<S>& grad_neighbor, Vec3<S>& grad_axis) {
  grad_neighbor = grad.a * frame.first + grad.b * frame.second;
  const S along = dot(neighbor, axis) * reciprocal(dot(axis, axis));
  grad_axis = grad_axis - along * grad_neighbor;
}

// What the pairs (q, n) need of a neighbor about one axis.
template <class S>
struct BlendNeighbor {
  AcrossComponents<S> unit;  // (a, b) / length
  S length;                  // sqrt(s^2 + eta^2)
  S weight;                  // fade s^2
};

template <class S, class F>
SN_HD BlendNeighbor<S> blend_neighbor(const AcrossComponents<S>& c, const F& fade) {
  using T = typename Bits<std::decay_t<decltype(output_of(c.a))>>::Element;
  const S square = c.a * c.a + c.b * c.b;
  const S raised = square + T(kBlendEtaSquare);
  const S inverse = reciprocal_sqrt(raised);
  return {{c.a * inverse, c.b * inverse}, raised * inverse, square * fade};
}

// grad_fade: the cotangent of fade, lane by lane.
template <class S, class F>
SN_HD AcrossComponents<S> blend_neighbor_vjp(const AcrossComponents<S>& c, const F& fade, const BlendNeighbor<S>& grad,
                                             S& grad_fade) {
  using T = typename Bits<std::decay_t<decltype(output_of(c.a))>>::Element;
  const S square = c.a * c.a + c.b * c.b;
  const S inverse = reciprocal_sqrt(square + T(kBlendEtaSquare));
  const S along = grad.unit.a * c.a + grad.unit.b * c.b;
  grad_fade = grad.weight * square;
  // twice the cotangent of `square`
  const S twice = grad.weight * fade * T(2) + grad.length * inverse - along * (inverse * inverse * inverse);
  return {grad.unit.a * inverse + twice * c.a, grad.unit.b * inverse + twice * c.b};
}

// One term of the sums.
template <class S>
struct BlendTerm {
  S x, y, w;
  S decay;  // the exponential
};

template <class S>
SN_HD BlendTerm<S> blend_term(bool even, const BlendNeighbor<S>& q, const BlendNeighbor<S>& n) {
  using T = typename Bits<std::decay_t<decltype(output_of(q.weight))>>::Element;
  const S x = q.unit.a * n.unit.a + q.unit.b * n.unit.b;
  const S y = q.unit.a * n.unit.b - q.unit.b * n.unit.a;
  const S e = exponential((even ? x : y) * T(kBlendKappa) - T(kBlendKappa));
  return {x, y, n.weight * (e - e * x), e};
}

// The sums of w, w x and w y over n, that of w from epsilon on.
template <class S>
struct BlendSums {
  S w, x, y;

  SN_HD void add(const BlendTerm<S>& t) {
    w += t.w;
    x += t.w * t.x;
    y += t.w * t.y;
  }
};

// re and im of q, as components.
template <class S>
SN_HD AcrossComponents<S> blend_point(const BlendNeighbor<S>& q, const BlendSums<S>& sums) {
  const S scale = q.length * reciprocal(sums.w);
  return {sums.x * scale, sums.y * scale};
}

// The cotangents of the sums, and in grad_length that of q.length.
template <class S>
SN_HD BlendSums<S> blend_point_vjp(const BlendNeighbor<S>& q, const BlendSums<S>& sums, const AcrossComponents<S>& grad,
                                   S& grad_length) {
  const S inverse = reciprocal(sums.w);
  const S along = (grad.a * sums.x + grad.b * sums.y) * inverse;  // grad.a re + grad.b im over q.length
  grad_length = along;
  const S scale = q.length * inverse;
  return {-(along * scale), grad.a * scale, grad.b * scale};
}

// Adds the cotangents of the two neighbors of one term, from those of the sums.
template <class S>
SN_HD void blend_term_vjp(bool even, const BlendNeighbor<S>& q, const BlendNeighbor<S>& n, const BlendTerm<S>& t,
                          const BlendSums<S>& grad, BlendNeighbor<S>& grad_q, BlendNeighbor<S>& grad_n) {
  using T = typename Bits<std::decay_t<decltype(output_of(q.weight))>>::Element;
  const S grad_w = grad.w + grad.x * t.x + grad.y * t.y;
  const S along = grad_w * t.w * T(kBlendKappa);  // of the lead
  S grad_x = grad.x * t.w - grad_w * n.weight * t.decay;
  S grad_y = grad.y * t.w;
  if (even) {
    grad_x += along;
  } else {
    grad_y += along;
  }
  grad_n.weight += grad_w * (t.decay - t.decay * t.x);
  grad_q.unit.a += grad_x * n.unit.a + grad_y * n.unit.b;
  grad_q.unit.b += grad_x * n.unit.b - grad_y * n.unit.a;
  grad_n.unit.a += grad_x * q.unit.a - grad_y * q.unit.b;
  grad_n.unit.b += grad_x * q.unit.b + grad_y * q.unit.a;
}

// ---- the kernel's arguments: pointers and sizes ---------------------------------------------------------------------

// re and im of the smooth torsion of all triplets, see math/smooth_torsion.h. Tangents are null where 0.
template <class T>
struct SmoothTorsionCall {
  TileGraph graph;
  int64_t num_triplets;        // columns of torsion and grad_torsion
  bool even;                   // under reflection
  const T* direction;          // [E, 3]  unit vectors, sender to receiver
  const T* fade;               // [E]     weight of the edge's sender as a neighbor of its receiver
  const T* direction_tangent;  // [E, 3]
  const T* fade_tangent;       // [E]
  const T* grad_torsion;       // [2, triplets]  null in the forward pass
  T* torsion;                  // [2, triplets]  the torsion, or its tangent; null in the backward pass
  T* grad_direction_in;        // [E, 3]  an edge as neighbor, in its receiver's tile; one every 4 E numbers for
  T* grad_fade;                // [E]     each part of a tile (cuda::tile_parts), of which a CPU has one
  T* grad_direction_out;       // [E, 3]  the same edge as axis, in its sender's tile; E zeros behind it
  T* scratch;                  // [parts, E, 8]  of the backward passes on a GPU
};
template <class T>
void smooth_torsion(const SmoothTorsionCall<T>& call, Pass pass, int64_t begin, int64_t end);  // tiles begin .. end

namespace cuda {

template <class T>
void smooth_torsion(const SmoothTorsionCall<T>& call, int64_t num_edges, Pass pass, Stream stream);

}  // namespace cuda

}  // namespace spherenet
