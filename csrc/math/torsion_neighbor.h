// The torsion rule: which neighbor a torsion is measured to.
//
// Going counterclockwise about an edge's axis, the torsion of a neighbor is the angle from its component across the
// axis to the next neighbor's, in (0, 2 pi]. Decided by index or with a margin, never by rounding.
#pragma once
#include "../kernels.h"
#include "vec3.h"

namespace spherenet {

constexpr double kTieAngle = 1e-4;   // radians: azimuths this close count as one
constexpr double kCollinear = 1e-5;  // |component across the axis| of a unit vector below which it has no azimuth
constexpr double kTwoPi = 6.283185307179586476925286766559;

// A right-handed frame across a unit axis: u, v, axis.
struct AxisFrame {
  Vec3<double> axis, u, v;
};

SN_HD AxisFrame axis_frame(const Vec3<double>& axis) {
  // Start from the coordinate axis that is least along the axis.
  const double x = std::fabs(axis.x), y = std::fabs(axis.y), z = std::fabs(axis.z);
  Vec3<double> start{0, 0, 1};
  if (x <= y && x <= z) {
    start = {1, 0, 0};
  } else if (y <= z) {
    start = {0, 1, 0};
  }
  const Vec3<double> across = start - dot(start, axis) * axis;
  const Vec3<double> u = reciprocal_sqrt(dot(across, across)) * across;
  return {axis, u, cross(axis, u)};
}

// The azimuth of a unit vector about the axis, or -1 where it is collinear; azimuths lie in [0, 2 pi].
SN_HD double azimuth(const AxisFrame& frame, const Vec3<double>& direction) {
  const double a = dot(direction, frame.u), b = dot(direction, frame.v);
  if (a * a + b * b < kCollinear * kCollinear) return -1;
  const double angle = std::atan2(b, a);
  return angle < 0 ? angle + kTwoPi : angle;
}

// A neighbor that has an azimuth: its number in in(j).
struct Azimuth {
  double angle;
  int32_t neighbor;
};

// The turn from one azimuth on to another, as the rule counts it: in [kTieAngle, 2 pi + kTieAngle).
SN_HD double counted_turn(double own, double other) {
  double turn = other - own;
  if (turn < 0) turn += kTwoPi;
  return turn < kTieAngle ? turn + kTwoPi : turn;
}

// The neighbor of sorted[own], where sorted [count] ascends by angle: the first turn of at least kTieAngle, all turns
// within kTieAngle of it being tied. A smaller turn counts as a full one more, so it comes after all others. That is
// the smallest neighbor number whose counted_turn is less than kTieAngle above the least one.
SN_HD int32_t torsion_neighbor(const Azimuth* sorted, int64_t count, int64_t own) {
  const auto turn = [&](int64_t i) {
    const double angle = sorted[i].angle - sorted[own].angle;
    return i < own ? angle + kTwoPi : angle;
  };
  const auto after = [&](int64_t i) { return i + 1 < count ? i + 1 : 0; };
  int64_t first = after(own);
  while (first != own && turn(first) < kTieAngle) first = after(first);
  const int64_t skipped = first;  // those from after(own) up to here come last, a full turn later
  double limit = kTieAngle;
  int32_t neighbor = kNoNeighbor;
  const auto consider = [&](int64_t i, double angle) {
    if (neighbor == kNoNeighbor) {
      limit += angle;
      neighbor = sorted[i].neighbor;
    }
    if (angle >= limit) return false;
    if (sorted[i].neighbor < neighbor) neighbor = sorted[i].neighbor;
    return true;
  };
  for (int64_t i = first; i != own; i = after(i))
    if (!consider(i, turn(i))) return neighbor;
  for (int64_t i = after(own); i != skipped; i = after(i))
    if (!consider(i, turn(i) + kTwoPi)) return neighbor;
  return neighbor;
}

// ---- the kernel's arguments: pointers and sizes ---------------------------------------------------------------------

// The neighbors of the tiles [begin, end): codes, see macros.h.
template <class T>
void torsion_neighbor(const TileGraph& graph, const T* vec /* [E,3] */, int32_t* neighbor /* [triplets] */,
                      int64_t begin, int64_t end);

namespace cuda {

template <class T>
void torsion_neighbor(const TileGraph& graph, const T* vec, int32_t* neighbor, Stream stream);

}  // namespace cuda

}  // namespace spherenet
