// The radial basis of edges and its derivatives, in double like the mathematics.
#include "../math/radial_basis.h"
#include "launch.h"

namespace spherenet::cuda {
namespace {

// A block takes kWarp edges, one for each lane; its warps share the functions out among them, so that all lanes compute
// the same one. Rows pass through shared memory, since a lane's numbers are far from its neighbor's.
constexpr int kEdges = kWarp, kWarps = 8;

template <Pass kPass>
using Number = std::conditional_t<kPass == Pass::kDoubleBackward, Dual<double>, double>;

template <class T>
struct Tile {
  int stride;    // of the rows, odd: lanes hit different banks
  T* rows;       // [kEdges, stride]  bessel [K] and radial [L K] of an edge: cotangents, then values in their place
  double* sums;  // [kWarps, kEdges]  of grad_distance

  SN_HD Tile(SharedPieces& pieces, int num_functions)
      : stride(num_functions | 1), rows(pieces.take<T>(kEdges * stride)), sums(pieces.take<double>(kWarps * kEdges)) {}
};

// Between rows [count, size] of global memory and columns `first` on of the tile.
template <class T>
__device__ void load_rows(const T* from, int size, int count, int first, const Tile<T>& tile) {
  for (int i = threadIdx.x; i < count * size; i += kWarps * kWarp) {
    const int edge = i / size;
    tile.rows[edge * tile.stride + first + i - edge * size] = from[i];
  }
}
template <class T>
__device__ void store_rows(T* to, int size, int count, int first, const Tile<T>& tile) {
  for (int i = threadIdx.x; i < count * size; i += kWarps * kWarp) {
    const int edge = i / size;
    to[i] = tile.rows[edge * tile.stride + first + i - edge * size];
  }
}

template <class S>
__device__ S with_tangent(double value, double tangent) {
  if constexpr (is_dual<S>::value) {
    return {value, tangent};
  } else {
    return value;
  }
}
template <class S, class T>
__device__ S distance_of(const RadialBasisCall<T>& call, int64_t edge) {
  return with_tangent<S>(call.distance[edge], call.distance_tangent ? call.distance_tangent[edge] : 0);
}
template <class S, class T>
__device__ S frequency_of(const RadialBasisCall<T>& call, int n) {
  return with_tangent<S>(call.frequency[n], call.frequency_tangent ? call.frequency_tangent[n] : 0);
}
template <class T>
__device__ RadialBasis basis_of(const RadialBasisCall<T>& call) {
  return {call.num_spherical, call.num_radial, call.cutoff, {call.envelope_exponent + 1}, call.roots, call.scale};
}

// bessel and radial (in the forward and, their tangents, in the double backward) and grad_distance.
template <class T, Pass kPass>
__global__ void __launch_bounds__(kWarps* kWarp, 2) radial_basis_kernel(RadialBasisCall<T> call) {
  using S = Number<kPass>;
  constexpr bool kValue = kPass != Pass::kBackward, kVjp = kPass != Pass::kForward;
  const RadialBasis basis = basis_of(call);
  const int K = call.num_radial, LK = call.num_spherical * K;
  const int64_t first = int64_t(blockIdx.x) * kEdges;
  const int count = int(call.num_edges - first < kEdges ? call.num_edges - first : kEdges);
  SharedPieces pieces(shared_memory);
  const Tile<T> tile(pieces, K + LK);
  if constexpr (kVjp) {
    load_rows(call.grad_bessel + first * K, K, count, 0, tile);
    load_rows(call.grad_radial + first * LK, LK, count, K, tile);
    __syncthreads();
  }

  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  double grad_distance = 0;
  if (lane < count) {
    const S x = distance_of<S>(call, first + lane) * (1 / call.cutoff);
    S grad_x{}, u, slope;
    basis.envelope(x, u, slope);
    for (int f = warp; f < K + LK; f += kWarps) {
      T& number = tile.rows[lane * tile.stride + f];
      const double grad = kVjp ? double(number) : 0;
      if (f < K) {
        const S frequency = frequency_of<S>(call, f);
        if constexpr (kVjp) grad_x = grad_x + RadialBasis::bessel_vjp(x, u, slope, frequency, grad).x;
        if constexpr (kValue) number = T(output_of(RadialBasis::bessel(x, u, frequency)));
      } else {
        const int i = f - K;
        if constexpr (kVjp) grad_x = grad_x + basis.radial_vjp(x, i / K, i, grad);
        if constexpr (kValue) number = T(output_of(basis.radial(x, i / K, i)));
      }
    }
    grad_distance = output_of(grad_x) / call.cutoff;
  }
  if constexpr (kVjp) tile.sums[threadIdx.x] = grad_distance;
  __syncthreads();
  if constexpr (kValue) {
    store_rows(call.bessel + first * K, K, count, 0, tile);
    store_rows(call.radial + first * LK, LK, count, K, tile);
  }
  if (kVjp && warp == 0 && lane < count) {
    for (int other = 1; other < kWarps; ++other) grad_distance += tile.sums[other * kWarp + lane];
    call.grad_distance[first + lane] = T(grad_distance);
  }
}

constexpr int kFrequencyThreads = 128;

// grad_frequency[chunk, n], chunk and n being the block's two numbers.
template <class T, Pass kPass>
__global__ void __launch_bounds__(kFrequencyThreads) grad_frequency_kernel(RadialBasisCall<T> call) {
  using S = Number<kPass>;
  const RadialBasis basis = basis_of(call);
  const int n = blockIdx.y, K = call.num_radial;
  const S frequency = frequency_of<S>(call, n);
  const int64_t begin = blockIdx.x * kRadialBasisChunk;
  const int64_t end = begin + kRadialBasisChunk < call.num_edges ? begin + kRadialBasisChunk : call.num_edges;
  double sum = 0;
  for (int64_t edge = begin + threadIdx.x; edge < end; edge += kFrequencyThreads) {
    const S x = distance_of<S>(call, edge) * (1 / call.cutoff);
    S u, slope;
    basis.envelope(x, u, slope);
    sum += output_of(RadialBasis::bessel_vjp(x, u, slope, frequency, double(call.grad_bessel[edge * K + n])).frequency);
  }
  for (int step = kWarp / 2; step > 0; step /= 2) sum += __shfl_down_sync(kAllLanes, sum, step);
  double* sums = SharedPieces(shared_memory).take<double>(kFrequencyThreads / kWarp);
  if (threadIdx.x % kWarp == 0) sums[threadIdx.x / kWarp] = sum;
  __syncthreads();
  if (threadIdx.x > 0) return;
  for (int warp = 1; warp < kFrequencyThreads / kWarp; ++warp) sum += sums[warp];
  call.grad_frequency[blockIdx.x * int64_t(K) + n] = T(sum);
}

template <Pass kPass, class T>
void run(const RadialBasisCall<T>& call, Stream stream) {
  SharedPieces pieces;
  Tile<T>(pieces, call.num_radial * (1 + call.num_spherical));
  launch("radial_basis", radial_basis_kernel<T, kPass>, ceil_div(call.num_edges, kEdges), kWarps * kWarp,
         pieces.bytes(), stream, call);
  if constexpr (kPass != Pass::kForward) {
    launch("radial_basis_grad_frequency", grad_frequency_kernel<T, kPass>,
           {ceil_div(call.num_edges, kRadialBasisChunk), call.num_radial}, kFrequencyThreads,
           kFrequencyThreads / kWarp * sizeof(double), stream, call);
  }
}

}  // namespace

template <class T>
void radial_basis(const RadialBasisCall<T>& call, Pass pass, Stream stream) {
  switch (pass) {
    case Pass::kForward:
      return run<Pass::kForward>(call, stream);
    case Pass::kBackward:
      return run<Pass::kBackward>(call, stream);
    case Pass::kDoubleBackward:
      return run<Pass::kDoubleBackward>(call, stream);
  }
}

template void radial_basis(const RadialBasisCall<float>&, Pass, Stream);
template void radial_basis(const RadialBasisCall<double>&, Pass, Stream);

}  // namespace spherenet::cuda
