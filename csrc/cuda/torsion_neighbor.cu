// The neighbors that all torsions are measured to: a block for every tile, a thread for every pair (q, e).
//
// Azimuths are not sorted: each pair looks at those of all neighbors about its axis, twice, first for the least turn
// and then for the smallest number among those tied with it.
#include "../math/torsion_neighbor.h"
#include "launch.h"

namespace spherenet::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kAzimuths = 1024;  // held in shared memory
constexpr int kAxes = 64;        // at most so many edges out of the atom share them

struct Tile {
  int64_t first, pairs;  // the first edge in, and the first pair
  int num_in, num_out;
  const int64_t* out_edge;  // [num_out]
};

struct Shared {
  AxisFrame* frames;  // [kAxes]
  double* azimuths;   // [kAzimuths]
  SN_HD explicit Shared(SharedPieces& pieces)
      : frames(pieces.take<AxisFrame>(kAxes)), azimuths(pieces.take<double>(kAzimuths)) {}
};

template <class T>
__device__ Vec3<double> unit(const T* vec, int64_t edge, double sign) {
  const Vec3<double> v{double(vec[3 * edge]), double(vec[3 * edge + 1]), double(vec[3 * edge + 2])};
  return (sign * reciprocal_sqrt(dot(v, v))) * v;
}

// Of the neighbor q, or -1 where it has none or is the far end of the axis itself.
template <class T>
__device__ double azimuth_of(const TileGraph& graph, const T* vec, const Tile& tile, const AxisFrame& frame, int e,
                             int q) {
  return graph.rev[tile.out_edge[e]] == tile.first + q ? -1 : azimuth(frame, unit(vec, tile.first + q, -1));
}

// The two looks at others[stride * i], the azimuths of the neighbors first + i, i < count.
__device__ void find_least(double own, int q, const double* others, int stride, int first, int count, double* least) {
  for (int i = 0; i < count; ++i) {
    const double other = others[stride * i];
    if (other < 0 || first + i == q) continue;
    const double turn = counted_turn(own, other);
    if (turn < *least) *least = turn;
  }
}
__device__ void find_tied(double own, int q, const double* others, int stride, int first, int count, double limit,
                          int* neighbor) {
  for (int i = 0; i < count && *neighbor == kNoNeighbor; ++i) {
    const double other = others[stride * i];
    if (other >= 0 && first + i != q && counted_turn(own, other) < limit) *neighbor = first + i;
  }
}

constexpr double kNever = 1e300;

// Several edges out of the atom at a time: azimuths [num_in, batch] fit.
template <class T>
__device__ void small_tile(const TileGraph& graph, const T* vec, const Tile& tile, const Shared& shared,
                           int32_t* neighbor) {
  const int most = kAzimuths / tile.num_in < kAxes ? kAzimuths / tile.num_in : kAxes;
  for (int begin = 0; begin < tile.num_out; begin += most) {
    const int batch = tile.num_out - begin < most ? tile.num_out - begin : most, pairs = tile.num_in * batch;
    for (int e = threadIdx.x; e < batch; e += kThreads)
      shared.frames[e] = axis_frame(unit(vec, tile.out_edge[begin + e], 1));
    __syncthreads();
    for (int pair = threadIdx.x; pair < pairs; pair += kThreads) {
      const int q = pair / batch, e = pair - q * batch;
      shared.azimuths[pair] = azimuth_of(graph, vec, tile, shared.frames[e], begin + e, q);
    }
    __syncthreads();
    for (int pair = threadIdx.x; pair < pairs; pair += kThreads) {
      const int q = pair / batch, e = pair - q * batch;
      const double own = shared.azimuths[pair];
      int found = kVanishing;
      if (own >= 0) {
        double least = kNever;
        found = kNoNeighbor;
        find_least(own, q, shared.azimuths + e, batch, 0, tile.num_in, &least);
        find_tied(own, q, shared.azimuths + e, batch, 0, tile.num_in, least + kTieAngle, &found);
      }
      neighbor[tile.pairs + int64_t(q) * tile.num_out + begin + e] = found;
    }
    // No barrier: the next frames were last read before the azimuths were complete, the next azimuths follow a barrier.
  }
}

// One edge out of the atom at a time and kThreads neighbors of it, to which all azimuths are shown in portions, twice.
template <class T>
__device__ void large_tile(const TileGraph& graph, const T* vec, const Tile& tile, const Shared& shared,
                           int32_t* neighbor) {
  for (int e = 0; e < tile.num_out; ++e) {
    const AxisFrame frame = axis_frame(unit(vec, tile.out_edge[e], 1));
    for (int group = 0; group < tile.num_in; group += kThreads) {
      const int q = group + int(threadIdx.x);
      const double own = q < tile.num_in ? azimuth_of(graph, vec, tile, frame, e, q) : -1;
      double least = kNever;
      int found = own >= 0 ? kNoNeighbor : kVanishing;
      for (int look = 0; look < 2; ++look)
        for (int first = 0; first < tile.num_in; first += kAzimuths) {
          const int count = tile.num_in - first < kAzimuths ? tile.num_in - first : kAzimuths;
          __syncthreads();
          for (int i = threadIdx.x; i < count; i += kThreads)
            shared.azimuths[i] = azimuth_of(graph, vec, tile, frame, e, first + i);
          __syncthreads();
          if (own < 0) continue;
          if (look == 0) find_least(own, q, shared.azimuths, 1, first, count, &least);
          if (look == 1) find_tied(own, q, shared.azimuths, 1, first, count, least + kTieAngle, &found);
        }
      if (q < tile.num_in) neighbor[tile.pairs + int64_t(q) * tile.num_out + e] = found;
    }
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads) torsion_neighbor_kernel(TileGraph graph, const T* vec, int32_t* neighbor) {
  const int64_t j = blockIdx.x, first_out = graph.out_ptr[j];
  const Tile tile{graph.in_ptr[j], graph.triplet_ptr[j], int(graph.in_ptr[j + 1] - graph.in_ptr[j]),
                  int(graph.out_ptr[j + 1] - first_out), graph.out_edge + first_out};
  SharedPieces pieces(shared_memory);
  const Shared shared(pieces);
  if (tile.num_in == 0) return;
  if (tile.num_in <= kAzimuths) {
    small_tile(graph, vec, tile, shared, neighbor);
  } else {
    large_tile(graph, vec, tile, shared, neighbor);
  }
}

}  // namespace

template <class T>
void torsion_neighbor(const TileGraph& graph, const T* vec, int32_t* neighbor, Stream stream) {
  SharedPieces pieces;
  (void)Shared(pieces);
  launch("torsion_neighbor", torsion_neighbor_kernel<T>, graph.num_nodes, kThreads, pieces.bytes(), stream, graph, vec,
         neighbor);
}

template void torsion_neighbor(const TileGraph&, const float*, int32_t*, Stream);
template void torsion_neighbor(const TileGraph&, const double*, int32_t*, Stream);

}  // namespace spherenet::cuda
