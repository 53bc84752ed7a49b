// Neighbors in a batch of open molecules, from all distances within each molecule: a warp takes an atom.
#include "../math/neighbors.h"
#include "launch.h"

namespace spherenet::cuda {
namespace {

constexpr int kWarpsPerBlock = 4;
constexpr int kScanThreads = 1024;

template <class T>
__global__ void count_kernel(NeighborCall<T> call) {
  const int lane = threadIdx.x % kWarp;
  const int64_t atom = int64_t(blockIdx.x) * kWarpsPerBlock + threadIdx.x / kWarp;
  if (atom >= call.num_atoms) return;  // all lanes of the warp
  const AtomRange molecule = molecule_of(call.batch, call.num_atoms, atom);
  const T* own = call.pos + 3 * atom;
  int count = 0, wrong = misnumbered(call.batch, atom) || !is_finite(own);
  for (int64_t other = molecule.begin + lane; other < molecule.end; other += kWarp) {
    const double length = distance(own, call.pos + 3 * other);
    wrong |= other != atom && length < kCoincident;
    count += other != atom && length < call.cutoff;
  }
  for (int apart = kWarp / 2; apart > 0; apart /= 2) {
    count += __shfl_xor_sync(kAllLanes, count, apart);
    wrong |= __shfl_xor_sync(kAllLanes, wrong, apart);
  }
  if (lane == 0) call.degree[atom] = wrong ? -1 : count;
}

// Edges, triplets and wrong atoms before some atom.
struct Totals {
  int64_t edges, triplets, wrong;
};
__device__ __forceinline__ Totals operator+(const Totals& a, const Totals& b) {
  return {a.edges + b.edges, a.triplets + b.triplets, a.wrong + b.wrong};
}
__device__ __forceinline__ Totals totals_of(int32_t degree) {
  if (degree < 0) return {0, 0, 1};
  return {degree, int64_t(degree) * degree, 0};
}

// One block; every thread takes a run of atoms.
template <class T>
__global__ void __launch_bounds__(kScanThreads) pointers_kernel(NeighborCall<T> call) {
  __shared__ Totals sums[kScanThreads];
  const int64_t N = call.num_atoms, run = ceil_div(N, int64_t(kScanThreads));
  const int own = threadIdx.x;
  const int64_t begin = own * run < N ? own * run : N, end = begin + run < N ? begin + run : N;
  Totals sum{0, 0, 0};
  for (int64_t atom = begin; atom < end; ++atom) sum = sum + totals_of(call.degree[atom]);
  sums[own] = sum;
  __syncthreads();
  for (int back = 1; back < kScanThreads; back *= 2) {  // sums[k] grows to the sum of the last 2 back runs up to k
    const Totals before = own >= back ? sums[own - back] : Totals{0, 0, 0};
    __syncthreads();
    sums[own] = before + sums[own];
    __syncthreads();
  }
  const Totals all = sums[kScanThreads - 1];
  const bool fits = all.wrong == 0 && (call.edge_capacity < 0 || all.edges <= call.edge_capacity) &&
                    (call.triplet_capacity < 0 || all.triplets <= call.triplet_capacity);
  Totals before = own ? sums[own - 1] : Totals{0, 0, 0};
  for (int64_t atom = begin; atom < end; ++atom) {
    before = before + totals_of(call.degree[atom]);
    call.in_ptr[atom + 1] = fits ? before.edges : 0;
    call.triplet_ptr[atom + 1] = fits ? before.triplets : 0;
  }
  if (own) return;
  call.in_ptr[0] = call.triplet_ptr[0] = 0;
  call.status[0] = all.edges;
  call.status[1] = all.triplets;
  call.status[2] = all.wrong;
}

template <class T>
__global__ void find_kernel(NeighborCall<T> call) {
  const int lane = threadIdx.x % kWarp;
  const int64_t atom = int64_t(blockIdx.x) * kWarpsPerBlock + threadIdx.x / kWarp;
  if (atom >= call.num_atoms) return;  // all lanes of the warp
  const AtomRange molecule = molecule_of(call.batch, call.num_atoms, atom);
  const int64_t last = call.in_ptr[atom + 1];
  int64_t edge = call.in_ptr[atom];
  for (int64_t first = molecule.begin; first < molecule.end && edge < last; first += kWarp) {
    const int64_t other = first + lane;
    const bool near =
        other < molecule.end && other != atom && distance(call.pos + 3 * atom, call.pos + 3 * other) < call.cutoff;
    int up_to = near;  // neighbors among the lanes up to this one
    for (int back = 1; back < kWarp; back *= 2) {
      const int before = __shfl_sync(kAllLanes, up_to, (lane - back) & (kWarp - 1));
      if (lane >= back) up_to += before;
    }
    const int64_t number = edge + up_to - 1;
    if (near && number < last) {
      call.edge_index[number] = other;
      call.edge_index[call.num_edges + number] = atom;
    }
    edge += __shfl_sync(kAllLanes, up_to, kWarp - 1);
  }
  for (edge += lane; edge < last; edge += kWarp)  // not so many
    call.edge_index[edge] = call.edge_index[call.num_edges + edge] = atom;
}

template <class T>
__global__ void mirror_kernel(NeighborCall<T> call) {
  const int64_t edge = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (edge >= call.num_edges) return;
  int64_t* senders = call.edge_index;
  int64_t* receivers = call.edge_index + call.num_edges;
  if (edge < call.in_ptr[call.num_atoms]) {
    const int64_t reverse = reverse_edge(senders, call.in_ptr, senders[edge], receivers[edge]);
    call.rev[edge] = reverse;
    call.out_edge[edge] = reverse < 0 ? edge : reverse;  // exchanging the ends of all edges leaves the list the same
  } else {
    senders[edge] = receivers[edge] = call.rev[edge] = -1;
    call.out_edge[edge] = edge;
  }
}

}  // namespace

template <class T>
void count_neighbors(const NeighborCall<T>& call, Stream stream) {
  const int64_t blocks = ceil_div(call.num_atoms, int64_t(kWarpsPerBlock));
  launch("count_neighbors", count_kernel<T>, blocks, dim3(kWarpsPerBlock * kWarp), 0, stream, call);
  launch("neighbor_pointers", pointers_kernel<T>, 1, dim3(kScanThreads), 0, stream, call);
}

template <class T>
void find_neighbors(const NeighborCall<T>& call, Stream stream) {
  constexpr int kThreads = 128;
  const int64_t blocks = ceil_div(call.num_atoms, int64_t(kWarpsPerBlock));
  launch("find_neighbors", find_kernel<T>, blocks, dim3(kWarpsPerBlock * kWarp), 0, stream, call);
  launch("mirror_neighbors", mirror_kernel<T>, ceil_div(call.num_edges, int64_t(kThreads)), dim3(kThreads), 0, stream,
         call);
}

template void count_neighbors(const NeighborCall<float>&, Stream);
template void count_neighbors(const NeighborCall<double>&, Stream);
template void find_neighbors(const NeighborCall<float>&, Stream);
template void find_neighbors(const NeighborCall<double>&, Stream);

}  // namespace spherenet::cuda
