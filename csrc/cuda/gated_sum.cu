// gated_sum: the launchers. The double backward is the value and the gradients on duals.
#include "gated_sum_backward.h"
#include "gated_sum_forward.h"

namespace spherenet::cuda {
namespace {

constexpr int64_t kMostBlocks = 65536;   // more tiles than this are taken in strides
constexpr int64_t kBlocksWanted = 1024;  // fewer leave a large GPU idle
constexpr int64_t kTeamsWorth = 8;       // edges e that keep every lane of a block busy

template <class T, bool kDual>
void forward(const GatedSumCall<T>& call, int64_t num_edges, bool allow_tf32, Stream stream) {
  if (num_edges == 0) return;
  size_t bytes = 0;
  const GatedSumSizes sizes = gated_sum_sizes<T, kDual>(call, false, &bytes);
  // Few atoms: several blocks share a tile, each with some of its edges e.
  const int64_t nodes = std::max<int64_t>(call.graph.num_nodes, 1), degree = ceil_div(num_edges, nodes);
  const int64_t parts = std::max<int64_t>(std::min(ceil_div(degree, kTeamsWorth), kBlocksWanted / nodes), 1);
  auto kernel = sizes.groups == 1 ? gated_sum_forward_kernel<T, kDual, Expansion::kOneGroup>
                                  : gated_sum_forward_kernel<T, kDual, Expansion::kManyGroups>;
  if constexpr (std::is_same_v<T, float> && !kDual)
    if (allow_tf32 && call.shape.angle_size) kernel = gated_sum_forward_kernel<T, kDual, Expansion::kTensorCores>;
  launch("gated_sum", kernel, std::min(nodes * parts, kMostBlocks), kThreads, bytes, stream, call, HarmonicTable<T>(),
         sizes, num_edges, parts);
}

// A block adds its tiles' weight gradients to a row of its own, so these blocks are kGatedSumChunks.
template <class T, bool kDual>
void backward(const GatedSumCall<T>& call, int64_t num_edges, Stream stream) {
  if (num_edges == 0 && !call.grads.weights) return;
  size_t bytes = 0;
  const GatedSumSizes sizes = gated_sum_sizes<T, kDual>(call, true, &bytes);
  const int64_t blocks = call.grads.weights
                             ? kGatedSumChunks
                             : std::min(std::max<int64_t>(call.graph.num_nodes, 1), kMostBlocks);
  const auto kernel =
      sizes.groups == 1 ? gated_sum_backward_kernel<T, kDual, true> : gated_sum_backward_kernel<T, kDual, false>;
  launch("gated_sum_backward", kernel, blocks, kThreads, bytes, stream, call, HarmonicTable<T>(), sizes, num_edges);
}

}  // namespace

template <class T>
void gated_sum(const GatedSumCall<T>& call, int64_t num_edges, Pass pass, bool allow_tf32, Stream stream) {
  switch (pass) {
    case Pass::kForward:
      return forward<T, false>(call, num_edges, allow_tf32, stream);
    case Pass::kBackward:
      return backward<T, false>(call, num_edges, stream);
    default:
      forward<T, true>(call, num_edges, allow_tf32, stream);
      backward<T, true>(call, num_edges, stream);
  }
}

template void gated_sum(const GatedSumCall<float>&, int64_t, Pass, bool, Stream);
template void gated_sum(const GatedSumCall<double>&, int64_t, Pass, bool, Stream);

}  // namespace spherenet::cuda
