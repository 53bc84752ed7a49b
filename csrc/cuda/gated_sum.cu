// gated_sum: the launchers. The double backward is the value and the gradients on duals.
#include "gated_sum_backward.h"
#include "gated_sum_forward.h"

namespace spherenet::cuda {
namespace {

// The usual case has kernels of its own in float alone: float64 is for checks, and every kernel takes its time to
// build.
template <class T>
constexpr bool kIsFloat = std::is_same_v<T, float>;

constexpr int64_t kMostBlocks = 65536;   // more tiles than this are taken in strides
constexpr int64_t kBlocksWanted = 1024;  // fewer leave a large GPU idle
constexpr int64_t kEdgesWorth = 8;       // edges e that keep every lane of a block busy

template <class T, bool kDual, Expansion kExpansion>
void forward(const GatedSumCall<T>& call, int64_t num_edges, Stream stream) {
  if (num_edges == 0) return;
  static const HarmonicTable<T> table;
  size_t bytes = 0;
  const auto sizes = gated_sum_sizes<T, kDual, kExpansion == Expansion::kManyGroups>(call, false, &bytes);
  // Few atoms: several blocks share a tile, each with some of its edges e.
  const int64_t nodes = std::max<int64_t>(call.graph.num_nodes, 1), degree = ceil_div(num_edges, nodes);
  const int64_t parts = std::max<int64_t>(std::min(ceil_div(degree, kEdgesWorth), kBlocksWanted / nodes), 1);
  launch("gated_sum", gated_sum_forward_kernel<T, kDual, kExpansion>, std::min(nodes * parts, kMostBlocks), kThreads,
         bytes, stream, call, table, sizes, num_edges, parts);
}

template <class T, bool kDual, bool kManyGroups>
void backward(const GatedSumCall<T>& call, int64_t num_edges, Stream stream) {
  if (num_edges == 0 && !call.grads.weights && !call.grads.torsion) return;
  static const HarmonicTable<T> table;
  size_t bytes = 0;
  const auto sizes = gated_sum_sizes<T, kDual, kManyGroups>(call, true, &bytes);
  const GatedSumBlocks blocks = gated_sum_blocks(call.graph.num_nodes, call.shape.weights_size());
  launch("gated_sum_backward", gated_sum_backward_kernel<T, kDual, kManyGroups>, {blocks.tiles, blocks.parts}, kThreads,
         bytes, stream, call, table, sizes, num_edges);
}

// The pass on T or on duals, which differ in what they compute alone.
template <class T, bool kDual>
void value(const GatedSumCall<T>& call, int64_t num_edges, bool allow_tf32, Stream stream) {
  if constexpr (kIsFloat<T> && !kDual) {
    if (allow_tf32 && call.shape.angle_size) return forward<T, kDual, Expansion::kTensorCores>(call, num_edges, stream);
  }
  if constexpr (kIsFloat<T>) {
    if (gated_sum_groups(call.shape) == 1) return forward<T, kDual, Expansion::kOneGroup>(call, num_edges, stream);
  }
  forward<T, kDual, Expansion::kManyGroups>(call, num_edges, stream);
}
template <class T, bool kDual>
void gradients(const GatedSumCall<T>& call, int64_t num_edges, Stream stream) {
  if constexpr (kIsFloat<T>) {
    if (gated_sum_groups(call.shape) == 1) return backward<T, kDual, false>(call, num_edges, stream);
  }
  backward<T, kDual, true>(call, num_edges, stream);
}

}  // namespace

template <class T>
void gated_sum(const GatedSumCall<T>& call, int64_t num_edges, Pass pass, bool allow_tf32, Stream stream) {
  switch (pass) {
    case Pass::kForward:
      return value<T, false>(call, num_edges, allow_tf32, stream);
    case Pass::kBackward:
      return gradients<T, false>(call, num_edges, stream);
    default:
      value<T, true>(call, num_edges, allow_tf32, stream);
      gradients<T, true>(call, num_edges, stream);
  }
}

template void gated_sum(const GatedSumCall<float>&, int64_t, Pass, bool, Stream);
template void gated_sum(const GatedSumCall<double>&, int64_t, Pass, bool, Stream);

}  // namespace spherenet::cuda
