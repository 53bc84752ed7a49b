// Messages times a linear function of the distance basis, and its derivatives.
//
// A block takes kRadialFilterChunk edges, a thread one channel of them, with its row of the weight in registers: x, the
// cotangent and the results pass through once, and the filter is never stored. Only the gradient for the basis, a sum
// over channels, goes through shared memory.
#include "../math/dual.h"
#include "../math/radial_filter.h"
#include "launch.h"

namespace spherenet::cuda {
namespace {

constexpr int kEdges = int(kRadialFilterChunk);

// Channels at a time: what shared memory holds in the widest case, duals of doubles, is then as much as with floats.
template <class T>
constexpr int kThreads = sizeof(T) == 4 ? 128 : 64;

template <class T, Pass kPass>
using NumberOf = std::conditional_t<kPass == Pass::kDoubleBackward, Dual<T>, T>;

template <class S, class T, int kRadial>
struct Tile {
  static constexpr int kRow = kThreads<T> + 1;  // odd: threads of different edges hit different banks
  S* bessel;                                    // [kEdges, kRadial]
  S* grad_filter;                               // [kEdges, kRow]    x times the cotangent
  S* weight;                                    // [kRadial, kRow]

  SN_HD Tile(SharedPieces& pieces, bool with_gradients)
      : bessel(pieces.take<S>(kEdges * kRadial)),
        grad_filter(with_gradients ? pieces.take<S>(kEdges * kRow) : nullptr),
        weight(with_gradients ? pieces.take<S>(kRadial * kRow) : nullptr) {}
};

// K <= kRadial; functions past K are zeros.
template <class T, Pass kPass, int kRadial>
__global__ void __launch_bounds__(kThreads<T>) radial_filter_kernel(RadialFilterCall<T> call) {
  using S = NumberOf<T, kPass>;
  constexpr bool kVjp = kPass != Pass::kForward;
  constexpr int kPairs = (kEdges * kRadial + kThreads<T> - 1) / kThreads<T>;  // (edge, k) of a thread
  const int K = call.num_radial, H = call.channels, thread = threadIdx.x;
  const int64_t first = int64_t(blockIdx.x) * kEdges;
  const int count = int(call.num_edges - first < kEdges ? call.num_edges - first : kEdges);
  SharedPieces pieces(shared_memory);
  const Tile<S, T, kRadial> tile(pieces, kVjp);
  for (int i = thread; i < kEdges * kRadial; i += kThreads<T>) {
    const int edge = i / kRadial, k = i % kRadial;
    tile.bessel[i] =
        edge < count && k < K ? number_at<S>(call.bessel, call.bessel_tangent, (first + edge) * K + k) : S{};
  }
  T grad_bessel[kPairs] = {};
  for (int channel = thread; channel - thread < H; channel += kThreads<T>) {
    const bool inside = channel < H;
    S weight[kRadial];
    T grad_weight[kRadial] = {};
#pragma unroll
    for (int k = 0; k < kRadial; ++k) {
      weight[k] = inside && k < K ? number_at<S>(call.weight, call.weight_tangent, int64_t(channel) * K + k) : S{};
      if (kVjp) tile.weight[k * tile.kRow + thread] = weight[k];
    }
    __syncthreads();
    for (int edge = 0; inside && edge < count; ++edge) {
      const S* bessel = tile.bessel + edge * kRadial;
      S filter{};
#pragma unroll
      for (int k = 0; k < kRadial; ++k) filter += weight[k] * bessel[k];
      const int64_t i = (first + edge) * H + channel;
      const S x = number_at<S>(call.x, call.x_tangent, i);
      if constexpr (kPass != Pass::kBackward) call.out[i] = output_of(x * filter);
      if constexpr (kVjp) {
        const T grad = call.grad_out[i];
        call.grad_x[i] = output_of(filter * grad);
        const S grad_filter = x * grad;
        tile.grad_filter[edge * tile.kRow + thread] = grad_filter;
#pragma unroll
        for (int k = 0; k < kRadial; ++k) add_output(grad_weight[k], grad_filter, bessel[k]);
      }
    }
    if constexpr (kVjp) {
      if (call.grad_weight && inside)
#pragma unroll
        for (int k = 0; k < kRadial; ++k)
          if (k < K) call.grad_weight[(int64_t(blockIdx.x) * H + channel) * K + k] = grad_weight[k];
      __syncthreads();
      const int channels = H - (channel - thread) < kThreads<T> ? H - (channel - thread) : kThreads<T>;
      if (call.grad_bessel)
#pragma unroll
        for (int pair = 0; pair < kPairs; ++pair) {
          const int i = pair * kThreads<T> + thread, edge = i / kRadial, k = i % kRadial;
          if (edge >= count || k >= K) continue;
          for (int c = 0; c < channels; ++c)
            add_output(grad_bessel[pair], tile.grad_filter[edge * tile.kRow + c], tile.weight[k * tile.kRow + c]);
        }
      __syncthreads();
    }
  }
  if constexpr (kVjp)
    if (call.grad_bessel)
#pragma unroll
      for (int pair = 0; pair < kPairs; ++pair) {
        const int i = pair * kThreads<T> + thread, edge = i / kRadial, k = i % kRadial;
        if (edge < count && k < K) call.grad_bessel[(first + edge) * K + k] = grad_bessel[pair];
      }
}

template <class T, Pass kPass, int kRadial>
void run(const RadialFilterCall<T>& call, Stream stream) {
  SharedPieces pieces;
  Tile<NumberOf<T, kPass>, T, kRadial>(pieces, kPass != Pass::kForward);
  launch("radial_filter", radial_filter_kernel<T, kPass, kRadial>, ceil_div(call.num_edges, kRadialFilterChunk),
         kThreads<T>, pieces.bytes(), stream, call);
}

template <class T, int kRadial>
void run(const RadialFilterCall<T>& call, Pass pass, Stream stream) {
  switch (pass) {
    case Pass::kForward:
      return run<T, Pass::kForward, kRadial>(call, stream);
    case Pass::kBackward:
      return run<T, Pass::kBackward, kRadial>(call, stream);
    case Pass::kDoubleBackward:
      return run<T, Pass::kDoubleBackward, kRadial>(call, stream);
  }
}

}  // namespace

template <class T>
void radial_filter(const RadialFilterCall<T>& call, Pass pass, Stream stream) {
  call.num_radial <= 8 ? run<T, 8>(call, pass, stream) : run<T, kMaxRadial>(call, pass, stream);
}

template void radial_filter(const RadialFilterCall<float>&, Pass, Stream);
template void radial_filter(const RadialFilterCall<double>&, Pass, Stream);

}  // namespace spherenet::cuda
