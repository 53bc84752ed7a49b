// Messages times a linear function of the distance basis.
#pragma once
#include "../kernels.h"

namespace spherenet {

// out[e, c] = x[e, c] filter[e, c], filter[e, c] = sum over k of bessel[e, k] weight[c, k]. Tangents are null where 0.
template <class T>
struct RadialFilterCall {
  int64_t num_edges;
  int channels, num_radial;  // H, K
  const T* x;                // [E, H]
  const T* bessel;           // [E, K]
  const T* weight;           // [H, K]
  const T* grad_out;         // [E, H]  null in the forward pass
  const T* x_tangent;        // [E, H]
  const T* bessel_tangent;   // [E, K]
  const T* weight_tangent;   // [H, K]
  T* out;                    // [E, H]  the product, or its tangent; null in the backward pass
  T* grad_x;                 // [E, H]
  T* grad_bessel;            // [E, K]  null where nobody asks
  T* grad_weight;            // [chunks, H, K]  null where nobody asks
};
constexpr int64_t kRadialFilterChunk = 128;  // edges
template <class T>
void radial_filter(const RadialFilterCall<T>& call, Pass pass, int64_t chunk);

namespace cuda {

constexpr int64_t kRadialFilterChunk = 32;  // edges
template <class T>
void radial_filter(const RadialFilterCall<T>& call, Pass pass, Stream stream);

}  // namespace cuda

}  // namespace spherenet
