// Angle and torsion of one triplet k -> j -> i, as the three numbers that its spherical harmonics are polynomials of:
//   z = cos(theta)  and  re + i im = sin(theta) exp(i phi).
// No angle is ever computed: no acos, no atan2, no pole at 0 or 180 degrees.
// The angle is the one at j, or, without torsion, the one at i (see receiver_point).
#pragma once
#include "vec3.h"

namespace spherenet {

template <class S>
struct Triplet {
  Vec3<S> neighbor;  // unit vector from j to k
  Vec3<S> axis;      // unit vector from j to i
  Vec3<S> other;     // unit vector from j to whom the torsion of k is measured; from j to k itself where there is none
};

// Which of a triplet's harmonics exist, as factors 0 or 1 (R is a number or a SIMD vector of them):
//   measured to somebody: both 1;  kNoNeighbor: torsion 1, imaginary 0;  kVanishing: both 0.
template <class R>
struct TorsionKind {
  R torsion;    // factor of re and im
  R vanishing;  // 1 - torsion
  R imaginary;  // further factor of im; 0 makes re + i im = |p|, which is phi = 2 pi
};

template <class S>
struct SphericalPoint {
  S z, re, im;
};

// p: the neighbor's component across the axis; r: that of the other one.  re + i im = (p.r + i axis.(p x r)) / |r|
template <class S, class R>
SN_HD SphericalPoint<S> spherical_point(const Triplet<S>& t, const TorsionKind<R>& kind) {
  const S z = dot(t.neighbor, t.axis);
  const Vec3<S> p = t.neighbor - z * t.axis;
  const Vec3<S> r = t.other - dot(t.other, t.axis) * t.axis;
  const S inverse = reciprocal_sqrt(dot(r, r) * kind.torsion + kind.vanishing) * kind.torsion;
  return {z, dot(p, r) * inverse, dot(t.axis, cross(p, r)) * inverse * kind.imaginary};
}

// The cotangents of the triplet's three directions, from those of its point.
template <class S, class R>
SN_HD Triplet<S> spherical_point_vjp(const Triplet<S>& t, const TorsionKind<R>& kind, const SphericalPoint<S>& grad) {
  const S z = dot(t.neighbor, t.axis);
  const Vec3<S> p = t.neighbor - z * t.axis;
  const S w = dot(t.other, t.axis);
  const Vec3<S> r = t.other - w * t.axis;
  const S inverse = reciprocal_sqrt(dot(r, r) * kind.torsion + kind.vanishing) * kind.torsion;
  const Vec3<S> across = cross(p, r);

  const S grad_cos = grad.re * inverse;                   // of p.r
  const S grad_sin = grad.im * inverse * kind.imaginary;  // of axis.(p x r)
  const S grad_inverse = grad.re * dot(p, r) + grad.im * kind.imaginary * dot(t.axis, across);
  const S radial = grad_inverse * (inverse * inverse * inverse);
  const Vec3<S> grad_r = grad_cos * p + grad_sin * cross(t.axis, p) - radial * r;
  const Vec3<S> grad_p = grad_cos * r + grad_sin * cross(r, t.axis);
  const S grad_w = -dot(grad_r, t.axis);
  const S grad_z = grad.z - dot(grad_p, t.axis);

  Triplet<S> out;
  out.neighbor = grad_p + grad_z * t.axis;
  out.other = grad_r + grad_w * t.axis;
  out.axis = grad_sin * across - w * grad_r + grad_w * t.other - z * grad_p + grad_z * t.neighbor;
  return out;
}

// The angle at i instead, between i->j = -axis and i->k = neighbor - axis, vectors of any length. `kind` is kVanishing
// where k is i, whose z is 0, and kNoNeighbor elsewhere.
template <class S, class R>
SN_HD SphericalPoint<S> receiver_point(const Triplet<S>& t, const TorsionKind<R>& kind) {
  const Vec3<S> u = t.axis - t.neighbor;
  const S inverse = reciprocal_sqrt(dot(u, u) * kind.torsion + kind.vanishing) * kind.torsion;
  return {dot(t.axis, u) * inverse * reciprocal_sqrt(dot(t.axis, t.axis)), S{}, S{}};
}

template <class S, class R>
SN_HD Triplet<S> receiver_point_vjp(const Triplet<S>& t, const TorsionKind<R>& kind, const SphericalPoint<S>& grad) {
  const Vec3<S> u = t.axis - t.neighbor;
  const S inverse = reciprocal_sqrt(dot(u, u) * kind.torsion + kind.vanishing) * kind.torsion;
  const S inverse_axis = reciprocal_sqrt(dot(t.axis, t.axis));
  const S slope = grad.z * inverse * inverse_axis;  // of axis.u
  const S along = slope * dot(t.axis, u);
  const Vec3<S> grad_u = slope * t.axis - along * (inverse * inverse) * u;

  Triplet<S> out;
  out.neighbor = {S{} - grad_u.x, S{} - grad_u.y, S{} - grad_u.z};
  out.axis = slope * u - along * (inverse_axis * inverse_axis) * t.axis + grad_u;
  out.other = {S{}, S{}, S{}};
  return out;
}

// Which of the two points a gated sum wants.
template <class S, class R>
SN_HD SphericalPoint<S> triplet_point(bool at_receiver, const Triplet<S>& t, const TorsionKind<R>& kind) {
  return at_receiver ? receiver_point(t, kind) : spherical_point(t, kind);
}
template <class S, class R>
SN_HD Triplet<S> triplet_point_vjp(bool at_receiver, const Triplet<S>& t, const TorsionKind<R>& kind,
                                   const SphericalPoint<S>& grad) {
  return at_receiver ? receiver_point_vjp(t, kind, grad) : spherical_point_vjp(t, kind, grad);
}

}  // namespace spherenet
