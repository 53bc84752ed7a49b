// Real spherical harmonics as polynomials in z = cos(theta) and (re, im) = sin(theta) (cos phi, sin phi):
//   Y_l0 = Q_l0(z),  Y_lm = Q_lm(z) Re (re + i im)^m,  Y_l,-m = Q_lm(z) Im (re + i im)^m   for m > 0,
// where Q_lm is the m-th derivative of the Legendre polynomial P_l, normalized, with the Condon-Shortley sign (-1)^m.
// Order inside one l: m = 0, 1, .., l, -l, .., -1; so harmonic (l, m) has number l*l + (m >= 0 ? m : 2l+1+m).
#pragma once
#include "triplet.h"

namespace spherenet {

constexpr int kMaxHarmonics = kMaxSpherical * kMaxSpherical;
constexpr int kMaxLegendre = kMaxSpherical * (kMaxSpherical + 1) / 2;

SN_HD int legendre_index(int l, int m) { return l * (l + 1) / 2 + m; }

// Coefficients of  Q_lm = a_lm (z Q_l-1,m - b_lm Q_l-2,m)  and of  dQ_lm/dz = d_lm Q_l,m+1, by legendre_index.
template <class T>
struct HarmonicTable {
  T diagonal[kMaxSpherical];  // Q_mm
  T a[kMaxLegendre];
  T b[kMaxLegendre];
  T d[kMaxLegendre];

  SN_HD HarmonicTable() {
    double q = std::sqrt(0.25 / 3.14159265358979323846);
    for (int m = 0; m < kMaxSpherical; ++m) {
      if (m > 0) q *= -std::sqrt((2.0 * m + 1) / (2.0 * m)) * (m == 1 ? std::sqrt(2.0) : 1.0);
      diagonal[m] = T(q);
      for (int l = m; l < kMaxSpherical; ++l) {
        const double ll = double(l) * l, mm = double(m) * m, previous = double(l - 1) * (l - 1);
        const int i = legendre_index(l, m);
        a[i] = l > m ? T(std::sqrt((4 * ll - 1) / (ll - mm))) : T(0);
        b[i] = l > m + 1 ? T(std::sqrt((previous - mm) / (4 * previous - 1))) : T(0);
        d[i] = T(-std::sqrt(double(l - m) * (l + m + 1) / (m == 0 ? 2.0 : 1.0)));
      }
    }
  }
};

// Q_lm of one m by their recurrence: Q_mm at first, and Q_lm once `next` has run for every degree after m up to l.
template <class S, class T>
struct LegendreColumn {
  S before, current;

  static SN_HD LegendreColumn first(const HarmonicTable<T>& table, int m) { return {S{}, S{} + table.diagonal[m]}; }

  // i = legendre_index(l, m)
  SN_HD void next(const HarmonicTable<T>& table, int i, const S& z) {
    const S above = (z * current - before * table.b[i]) * table.a[i];
    before = current;
    current = above;
  }
};

// What the vector-Jacobian product needs again of one evaluation; entries past num_spherical stay unwritten.
template <class S>
struct HarmonicState {
  S legendre[kMaxLegendre];  // Q_lm
  S cosine[kMaxSpherical];   // Re (re + i im)^m
  S sine[kMaxSpherical];     // Im (re + i im)^m
};

// y [num_spherical^2], or with max_m = 0 only y[l*l] = Y_l0 (the others stay unwritten).
template <class S, class T>
SN_HD void harmonics(int num_spherical, int max_m, const HarmonicTable<T>& table, const SphericalPoint<S>& point,
                     HarmonicState<S>& state, S* y) {
  state.cosine[0] = S{} + T(1);
  state.sine[0] = S{};
  // The derivative of Q_lm is a multiple of Q_l,m+1: one m more than max_m where there is one.
  const int last_m = max_m + 1 < num_spherical ? max_m + 1 : num_spherical - 1;
  for (int m = 0; m <= last_m; ++m) {
    if (m > 0 && m <= max_m) {
      state.cosine[m] = state.cosine[m - 1] * point.re - state.sine[m - 1] * point.im;
      state.sine[m] = state.sine[m - 1] * point.re + state.cosine[m - 1] * point.im;
    }
    auto column = LegendreColumn<S, T>::first(table, m);
    for (int l = m; l < num_spherical; ++l) {
      const int i = legendre_index(l, m);
      if (l > m) column.next(table, i, point.z);
      const S current = column.current;
      state.legendre[i] = current;
      if (m == 0) {
        y[l * l] = current;
      } else if (m <= max_m) {
        y[l * l + m] = current * state.cosine[m];
        y[l * l + 2 * l + 1 - m] = current * state.sine[m];
      }
    }
  }
}

// The cotangent of the point, from grad_y [num_spherical^2] (only [l*l] is read when max_m = 0).
template <class S, class T>
SN_HD SphericalPoint<S> harmonics_vjp(int num_spherical, int max_m, const HarmonicTable<T>& table,
                                      const HarmonicState<S>& state, const S* grad_y) {
  SphericalPoint<S> grad{S{}, S{}, S{}};
  for (int m = 0; m <= max_m; ++m) {
    S grad_cosine = S{}, grad_sine = S{};
    for (int l = m; l < num_spherical; ++l) {
      const int i = legendre_index(l, m);
      S grad_legendre = grad_y[l * l + m];
      if (m > 0) {
        const S grad_imaginary = grad_y[l * l + 2 * l + 1 - m];
        grad_cosine += grad_legendre * state.legendre[i];
        grad_sine += grad_imaginary * state.legendre[i];
        grad_legendre = grad_legendre * state.cosine[m] + grad_imaginary * state.sine[m];
      }
      if (l > m) grad.z += grad_legendre * state.legendre[i + 1] * table.d[i];
    }
    if (m > 0) {
      grad.re += (grad_cosine * state.cosine[m - 1] + grad_sine * state.sine[m - 1]) * T(m);
      grad.im += (grad_sine * state.cosine[m - 1] - grad_cosine * state.sine[m - 1]) * T(m);
    }
  }
  return grad;
}

}  // namespace spherenet
