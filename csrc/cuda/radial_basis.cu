// The radial basis of edges and its derivatives.
#include "../math/radial_basis.h"
#include "launch.h"

namespace spherenet::cuda {
namespace {

// A block takes kWarp edges, one for each lane; its warps share the functions out among them, so that all lanes compute
// the same one. Rows pass through shared memory, since a lane's numbers are far from its neighbor's.
constexpr int kEdges = kWarp, kWarps = 8;

template <class T, Pass kPass>
using Number = std::conditional_t<kPass == Pass::kDoubleBackward, Dual<T>, T>;

template <class T>
struct Tile {
  int stride;                // of the rows, odd: lanes hit different banks
  T* rows;                   // [kEdges, stride]  bessel and radial of an edge: cotangents, then values in their place
  T* sums;                   // [kWarps, kEdges]  of grad_distance
  SineFactor<T>* sines;      // [K]
  BesselFactor<T>* bessels;  // [L K]

  SN_HD Tile(SharedPieces& pieces, const RadialBasisCall<T>& call)
      : stride((call.num_spherical + 1) * call.num_radial | 1),
        rows(pieces.take<T>(kEdges * stride)),
        sums(pieces.take<T>(kWarps * kEdges)),
        sines(pieces.take<SineFactor<T>>(call.num_radial)),
        bessels(pieces.take<BesselFactor<T>>(call.num_spherical * call.num_radial)) {}
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

template <class S, class T>
__device__ EdgeLength<S> edge_of(const RadialBasisCall<T>& call, const RadialBasis<T>& basis, int64_t edge) {
  return basis.edge(number_at<S>(call.distance, call.distance_tangent, edge));
}
template <class T>
__device__ SineFactor<T> sine_factor(const RadialBasisCall<T>& call, const RadialBasis<T>& basis, int n) {
  return basis.sine_factor(call.frequency[n], call.frequency_tangent ? call.frequency_tangent[n] : T(0));
}

// bessel and radial (in the forward and, their tangents, in the double backward) and grad_distance.
template <class T, Pass kPass>
__global__ void __launch_bounds__(kWarps* kWarp, 2) radial_basis_kernel(RadialBasisCall<T> call, RadialBasis<T> basis) {
  using S = Number<T, kPass>;
  constexpr bool kValue = kPass != Pass::kBackward, kVjp = kPass != Pass::kForward;
  const int K = call.num_radial, LK = call.num_spherical * K;
  const int64_t first = int64_t(blockIdx.x) * kEdges;
  const int count = int(call.num_edges - first < kEdges ? call.num_edges - first : kEdges);
  SharedPieces pieces(shared_memory);
  const Tile<T> tile(pieces, call);
  // Roots and scale are doubles, which some GPUs are slow with: one thread for each, and for all edges of the block.
  static_assert(kMaxSpherical * kMaxRadial <= kWarps * kWarp);
  if (const int i = threadIdx.x; i < LK) tile.bessels[i] = basis.bessel_factor(call.roots[i], call.scale[i]);
  if (const int n = threadIdx.x; n < K) tile.sines[n] = sine_factor(call, basis, n);
  if constexpr (kVjp) {
    load_rows(call.grad_bessel + first * K, K, count, 0, tile);
    load_rows(call.grad_radial + first * LK, LK, count, K, tile);
  }
  __syncthreads();

  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  T grad_distance = 0;
  if (lane < count) {
    const EdgeLength<S> edge = edge_of<S>(call, basis, first + lane);
    for (int f = warp; f < K + LK; f += kWarps) {
      T& number = tile.rows[lane * tile.stride + f];
      if (f < K) {
        const EnvelopedSine<S> sine = basis.sine(edge, tile.sines[f]);
        if constexpr (kVjp) add_output(grad_distance, sine.by_distance, number);
        if constexpr (kValue) number = output_of(sine.value);
      } else {
        const int i = f - K;
        with_order(i / K, [&](auto order) {
          const RadialFunction<S> function = basis.template radial<order.value>(edge, tile.bessels[i]);
          if constexpr (kVjp) add_output(grad_distance, function.by_distance, number);
          if constexpr (kValue) number = output_of(function.value);
        });
      }
    }
  }
  if constexpr (kVjp) tile.sums[threadIdx.x] = grad_distance;
  __syncthreads();
  if constexpr (kValue) {
    store_rows(call.bessel + first * K, K, count, 0, tile);
    store_rows(call.radial + first * LK, LK, count, K, tile);
  }
  if (kVjp && warp == 0 && lane < count) {
    for (int other = 1; other < kWarps; ++other) grad_distance += tile.sums[other * kWarp + lane];
    call.grad_distance[first + lane] = grad_distance;
  }
}

constexpr int kFrequencyThreads = 128;

// grad_frequency[chunk, n], chunk and n being the block's two numbers.
template <class T, Pass kPass>
__global__ void __launch_bounds__(kFrequencyThreads)
    grad_frequency_kernel(RadialBasisCall<T> call, RadialBasis<T> basis) {
  using S = Number<T, kPass>;
  const int n = blockIdx.y, K = call.num_radial;
  const SineFactor<T> factor = sine_factor(call, basis, n);
  const int64_t begin = blockIdx.x * kRadialBasisChunk;
  const int64_t end = begin + kRadialBasisChunk < call.num_edges ? begin + kRadialBasisChunk : call.num_edges;
  T sum = 0;
  for (int64_t i = begin + threadIdx.x; i < end; i += kFrequencyThreads)
    add_output(sum, basis.sine(edge_of<S>(call, basis, i), factor).by_frequency, call.grad_bessel[i * K + n]);
  for (int step = kWarp / 2; step > 0; step /= 2) sum += __shfl_down_sync(kAllLanes, sum, step);
  T* sums = SharedPieces(shared_memory).take<T>(kFrequencyThreads / kWarp);
  if (threadIdx.x % kWarp == 0) sums[threadIdx.x / kWarp] = sum;
  __syncthreads();
  if (threadIdx.x > 0) return;
  for (int warp = 1; warp < kFrequencyThreads / kWarp; ++warp) sum += sums[warp];
  call.grad_frequency[blockIdx.x * int64_t(K) + n] = sum;
}

template <Pass kPass, class T>
void run(const RadialBasisCall<T>& call, Stream stream) {
  SharedPieces pieces;
  Tile<T>(pieces, call);
  const RadialBasis<T> basis(call.cutoff, call.envelope_exponent);
  launch("radial_basis", radial_basis_kernel<T, kPass>, ceil_div(call.num_edges, kEdges), kWarps * kWarp,
         pieces.bytes(), stream, call, basis);
  if constexpr (kPass != Pass::kForward) {
    launch("radial_basis_grad_frequency", grad_frequency_kernel<T, kPass>,
           {ceil_div(call.num_edges, kRadialBasisChunk), call.num_radial}, kFrequencyThreads,
           kFrequencyThreads / kWarp * sizeof(T), stream, call, basis);
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
