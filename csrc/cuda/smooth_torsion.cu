// The smooth torsion of all triplets: a block for every tile, or for a part of its edges e where atoms are few, which
// it takes by some edges e at a time.
//
// A thread keeps one e and takes every so-many-th neighbor. As q it sums over the others n, whose numbers about e are
// in shared memory. For the gradients it comes once more, when the cotangents of all sums are known, and collects what
// its neighbor gets as q and as n from every other one. Sums over e and over neighbors have one owner each, who adds in
// a fixed order.
#include <algorithm>

#include "../math/smooth_torsion.h"
#include "launch.h"

namespace spherenet::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kEdges = 32;   // at most so many edges e at a time
constexpr int kPairs = 512;  // neighbors times edges that are in shared memory
constexpr int64_t kMostBlocks = 65536;

template <class T, Pass kPass>
class SmoothTorsionBlock {
  static constexpr bool kDual = kPass == Pass::kDoubleBackward, kVjp = kPass != Pass::kForward;
  using N = std::conditional_t<kDual, Dual<T>, T>;

  struct Axis {
    Vec3<N> vector;
    AcrossFrame<N> frame;
    int64_t edge;
    int64_t opposite;  // number of the opposite edge within in(j), if it is there
  };
  // Rows of `numbers`: what others need of a neighbor about an axis, and the cotangents of its sums and length.
  enum Row { kUnitA, kUnitB, kWeight, kGrads, kSaved = 4, kRows = kVjp ? kGrads + kSaved : kGrads };

 public:
  struct Memory {
    Axis* axes;  // [kEdges]
    N* numbers;  // [kRows, kPairs]  column n ne + e
    T* parts;    // [4, kThreads]
    SN_HD explicit Memory(SharedPieces& pieces)
        : axes(pieces.take<Axis>(kEdges)),
          numbers(pieces.take<N>(kRows * kPairs)),
          parts(kVjp ? pieces.take<T>(4 * kThreads) : nullptr) {}
  };

  __device__ __forceinline__ SmoothTorsionBlock(const SmoothTorsionCall<T>& call, const Memory& memory,
                                                int64_t num_edges)
      : call_(call), memory_(memory), num_edges_(num_edges) {}

  __device__ __forceinline__ void run(int j) {
    const TileGraph& graph = call_.graph;
    const int64_t first_out = graph.out_ptr[j];
    first_in_ = graph.in_ptr[j];
    first_triplet_ = graph.triplet_ptr[j];
    num_in_ = int(graph.in_ptr[j + 1] - first_in_);
    num_out_ = int(graph.out_ptr[j + 1] - first_out);
    begin_ = num_out_ * int(blockIdx.y) / int(gridDim.y);
    const int count = num_out_ * int(blockIdx.y + 1) / int(gridDim.y) - begin_;
    if (kVjp && count == 0) {
      for (int i = threadIdx.x; i < 4 * num_in_; i += kThreads) neighbor_gradient(i % 4, i / 4) = 0;
    }
    // As many edges at a time as fit with all their neighbors; if those of one do not, they come in portions.
    const int fit = max(1, min(kEdges, kPairs / max(num_in_, 1))), portions = ceil_div(count, fit);
    portion_ = min(num_in_, kPairs);
    for (int portion = 0; portion < portions; ++portion) {
      e0_ = begin_ + int(int64_t(count) * portion / portions);
      ne_ = begin_ + int(int64_t(count) * (portion + 1) / portions) - e0_;
      rows_ = kThreads / ne_;
      row_ = int(threadIdx.x) / ne_;
      e_ = int(threadIdx.x) % ne_;
      open_edges(graph.out_edge + first_out + e0_);
      add_neighbors();
      if (kVjp) {
        __syncthreads();  // all cotangents are there
        collect_gradients();
      }
    }
  }

 private:
  const SmoothTorsionCall<T>& call_;
  const Memory memory_;
  const int64_t num_edges_;

  int64_t first_in_, first_triplet_;
  int num_in_, num_out_;
  int portion_;     // neighbors in shared memory: all of them unless these are more than kPairs; then ne_ is 1
  int begin_;       // the first of the part's edges out of the atom
  int e0_, ne_;     // the portion's
  int rows_, row_;  // a thread takes the neighbors row_, row_ + rows_, .. if row_ < rows_
  int e_;           // for this edge of the portion

  __device__ __forceinline__ bool whole() const { return portion_ == num_in_; }
  __device__ __forceinline__ N& number(int row, int column) const { return memory_.numbers[row * kPairs + column]; }

  __device__ __forceinline__ Vec3<N> direction(int64_t edge, T sign) const {
    const T *value = call_.direction, *tangent = call_.direction_tangent;
    return {number_at<N>(value, tangent, 3 * edge) * sign, number_at<N>(value, tangent, 3 * edge + 1) * sign,
            number_at<N>(value, tangent, 3 * edge + 2) * sign};
  }
  __device__ __forceinline__ AcrossComponents<N> across(const Axis& axis, int n) const {
    const Vec3<N> neighbor = direction(first_in_ + n, T(-1));
    return {dot(neighbor, axis.frame.first), dot(neighbor, axis.frame.second)};
  }
  // 0 for the far end of the axis itself.
  __device__ __forceinline__ N fade(const Axis& axis, int n) const {
    return n == axis.opposite ? N{} : number_at<N>(call_.fade, call_.fade_tangent, first_in_ + n);
  }

  // ---- shared memory ----

  __device__ __forceinline__ void open_edges(const int64_t* out_edge) {
    __syncthreads();  // nobody reads the last portion any more
    if (int(threadIdx.x) < ne_) {
      Axis& axis = memory_.axes[threadIdx.x];
      axis.edge = out_edge[threadIdx.x];
      axis.opposite = call_.graph.rev[axis.edge] - first_in_;
      axis.vector = direction(axis.edge, T(1));
      axis.frame = frame_across(axis.vector);
    }
    __syncthreads();
    if (whole()) load_portion(0, false);
    __syncthreads();
  }

  // The neighbors first, first + 1, .. of all the portion's edges.
  __device__ __forceinline__ void load_portion(int first, bool grads) {
    const int count = min(portion_, num_in_ - first) * ne_;
    for (int i = threadIdx.x; i < count; i += kThreads) {
      const Axis& axis = memory_.axes[i % ne_];
      const int n = first + i / ne_;
      const BlendNeighbor<N> neighbor = blend_neighbor(across(axis, n), fade(axis, n));
      number(kUnitA, i) = neighbor.unit.a;
      number(kUnitB, i) = neighbor.unit.b;
      number(kWeight, i) = neighbor.weight;
      if constexpr (kVjp)
        for (int k = 0; grads && k < kSaved - 1; ++k) number(kGrads + k, i) = saved(k, n);
    }
  }
  // Without its length and the cotangent of that, which are nobody else's business.
  __device__ __forceinline__ BlendNeighbor<N> neighbor_at(int i) const {
    return {{number(kUnitA, i), number(kUnitB, i)}, N{}, number(kWeight, i)};
  }

  // The cotangents of the sums and of the length of the thread's edge and the neighbor q.
  __device__ __forceinline__ N& saved(int k, int q) const {
    if (whole()) return number(kGrads + k, q * ne_ + e_);
    return reinterpret_cast<N*>(call_.scratch)[kSaved * (blockIdx.y * num_edges_ + first_in_ + q) + k];
  }

  // f(column) for every neighbor but `own`; threads without one come along.
  template <class F>
  __device__ __forceinline__ void for_others(bool exists, int own, bool grads, const F& f) {
    for (int first = 0; first < num_in_; first += portion_) {
      if (!whole()) {
        __syncthreads();
        load_portion(first, grads);
        __syncthreads();
      }
      if (!exists) continue;
      const int count = min(portion_, num_in_ - first);
      for (int n = 0; n < count; ++n)
        if (first + n != own) f(n * ne_ + e_);
    }
  }

  // ---- sums ----

  // re and im of the portion's triplets, and the cotangents of the sums in them.
  __device__ __forceinline__ void add_neighbors() {
    const Axis& axis = memory_.axes[e_];
    for (int q0 = 0; q0 < num_in_; q0 += rows_) {
      const int q = q0 + row_;
      const bool exists = row_ < rows_ && q < num_in_;
      BlendNeighbor<N> own{};
      if (exists) own = blend_neighbor(across(axis, q), fade(axis, q));
      BlendSums<N> sums{N{} + T(kBlendEpsilon), N{}, N{}};
      for_others(exists, q, false, [&](int i) { sums.add(blend_term(call_.even, own, neighbor_at(i))); });
      if (!exists) continue;
      const int64_t re = first_triplet_ + int64_t(q) * num_out_ + e0_ + e_, im = call_.num_triplets + re;
      const T present = T(q != axis.opposite);
      if constexpr (kPass != Pass::kBackward) {
        const AcrossComponents<N> point = blend_point(own, sums);
        call_.torsion[re] = output_of(point.a) * present;
        call_.torsion[im] = output_of(point.b) * present;
      }
      if constexpr (kVjp) {
        const T* from = call_.grad_torsion;
        N grad_length;
        const BlendSums<N> grad =
            blend_point_vjp(own, sums, {N{} + from[re] * present, N{} + from[im] * present}, grad_length);
        saved(0, q) = grad.w;
        saved(1, q) = grad.x;
        saved(2, q) = grad.y;
        saved(3, q) = grad_length;
      }
    }
  }

  // ---- gradients ----

  // Of the direction (k < 3) and of the fade of the neighbor m.
  __device__ __forceinline__ T& neighbor_gradient(int k, int m) const {
    const int64_t part = blockIdx.y * 4 * num_edges_, row = first_in_ + m;
    return k < 3 ? call_.grad_direction_in[part + 3 * row + k] : call_.grad_fade[part + row];
  }

  __device__ __forceinline__ void collect_gradients() {
    const Axis& axis = memory_.axes[e_];
    T* const parts = memory_.parts;
    Vec3<N> grad_axis{};
    for (int m0 = 0; m0 < num_in_; m0 += rows_) {
      const int m = m0 + row_;
      const bool exists = row_ < rows_ && m < num_in_;
      const BlendNeighbor<N> grad = neighbor_gradients(axis, exists, m);
      if (exists) {
        N grad_fade;
        Vec3<N> grad_neighbor;
        const auto grad_across = blend_neighbor_vjp(across(axis, m), fade(axis, m), grad, grad_fade);
        across_vjp(axis.frame, axis.vector, direction(first_in_ + m, T(-1)), grad_across, grad_neighbor, grad_axis);
        // Directions point to the center, neighbors' vectors away from it: hence the sign.
        parts[threadIdx.x] = -output_of(grad_neighbor.x);
        parts[threadIdx.x + kThreads] = -output_of(grad_neighbor.y);
        parts[threadIdx.x + 2 * kThreads] = -output_of(grad_neighbor.z);
        parts[threadIdx.x + 3 * kThreads] = m == axis.opposite ? T(0) : output_of(grad_fade);
      }
      __syncthreads();
      for (int i = threadIdx.x; i < 4 * rows_; i += kThreads) {
        const int k = i / rows_, row = i % rows_;
        if (m0 + row >= num_in_) continue;
        T sum = 0;
        for (int e = 0; e < ne_; ++e) sum += parts[k * kThreads + row * ne_ + e];
        T& to = neighbor_gradient(k, m0 + row);
        to = e0_ > begin_ ? to + sum : sum;
      }
      __syncthreads();
    }
    parts[threadIdx.x] = output_of(grad_axis.x);
    parts[threadIdx.x + kThreads] = output_of(grad_axis.y);
    parts[threadIdx.x + 2 * kThreads] = output_of(grad_axis.z);
    __syncthreads();
    for (int i = threadIdx.x; i < 3 * ne_; i += kThreads) {
      const int k = i / ne_, e = i % ne_;
      T sum = 0;
      for (int row = 0; row < rows_; ++row) sum += parts[k * kThreads + row * ne_ + e];
      call_.grad_direction_out[3 * memory_.axes[e].edge + k] = sum;
    }
  }

  // What the neighbor m gets about the thread's axis.
  __device__ __forceinline__ BlendNeighbor<N> neighbor_gradients(const Axis& axis, bool exists, int m) {
    BlendNeighbor<N> own{}, grad{};
    BlendSums<N> grad_sums{};
    if (exists) {
      own = blend_neighbor(across(axis, m), fade(axis, m));
      grad_sums = {saved(0, m), saved(1, m), saved(2, m)};
      grad.length = saved(3, m);
    }
    for_others(exists, m, true, [&](int i) {
      const BlendNeighbor<N> other = neighbor_at(i);
      const BlendSums<N> grad_others{number(kGrads, i), number(kGrads + 1, i), number(kGrads + 2, i)};
      BlendNeighbor<N> unused{};  // what the other one gets it collects itself
      blend_term_vjp(call_.even, own, other, blend_term(call_.even, own, other), grad_sums, grad, unused);
      blend_term_vjp(call_.even, other, own, blend_term(call_.even, other, own), grad_others, unused, grad);
    });
    return grad;
  }
};

// Registers for 24 warps an SM at four bytes a number: more warps would make some numbers leave them.
template <class T, Pass kPass>
__global__ void __launch_bounds__(kThreads, sizeof(T) == 4 ? 6 : 3)
    smooth_torsion_kernel(SmoothTorsionCall<T> call, int64_t num_edges) {
  const TileGraph& graph = call.graph;
  SharedPieces pieces(shared_memory);
  SmoothTorsionBlock<T, kPass> block(call, typename SmoothTorsionBlock<T, kPass>::Memory(pieces), num_edges);
  for (int j = blockIdx.x; j < int(graph.num_nodes); j += gridDim.x) block.run(j);
  // Last, since what this needs would take registers from the tiles.
  const int64_t edges = graph.in_ptr[graph.num_nodes], triplets = graph.triplet_ptr[graph.num_nodes];
  for (int k = 0; kPass != Pass::kBackward && blockIdx.y == 0 && k < 2; ++k)
    clear_tail<kThreads>(call.torsion + k * call.num_triplets, triplets, call.num_triplets);
  if (kPass != Pass::kForward) {
    const int64_t part = blockIdx.y * 4 * num_edges;
    clear_tail<kThreads>(call.grad_direction_in + part, 3 * edges, 3 * num_edges);
    clear_tail<kThreads>(call.grad_fade + part, edges, num_edges);
    // An axis has no gradient of the fade.
    if (blockIdx.y == 0) clear_tail<kThreads>(call.grad_direction_out, 3 * edges, 4 * num_edges);
  }
}

template <class T, Pass kPass>
void run(const SmoothTorsionCall<T>& call, int64_t num_edges, Stream stream) {
  SharedPieces pieces;
  (void)typename SmoothTorsionBlock<T, kPass>::Memory(pieces);
  launch("smooth_torsion", smooth_torsion_kernel<T, kPass>,
         {std::clamp<int64_t>(call.graph.num_nodes, 1, kMostBlocks), tile_parts(call.graph.num_nodes)}, kThreads,
         pieces.bytes(), stream, call, num_edges);
}

}  // namespace

template <class T>
void smooth_torsion(const SmoothTorsionCall<T>& call, int64_t num_edges, Pass pass, Stream stream) {
  switch (pass) {
    case Pass::kForward:
      return run<T, Pass::kForward>(call, num_edges, stream);
    case Pass::kBackward:
      return run<T, Pass::kBackward>(call, num_edges, stream);
    case Pass::kDoubleBackward:
      return run<T, Pass::kDoubleBackward>(call, num_edges, stream);
  }
}

template void smooth_torsion(const SmoothTorsionCall<float>&, int64_t, Pass, Stream);
template void smooth_torsion(const SmoothTorsionCall<double>&, int64_t, Pass, Stream);

}  // namespace spherenet::cuda
