// What all kernels share: the graph in tiles, the passes, sums over chunks of work. No torch. The arguments of a kernel
// (pointers and sizes) and its declaration stand in math/, in the header with the stem of its operator.
#pragma once
#include <cstdint>

#include "math/macros.h"

namespace spherenet {

// The graph, in tiles: everything around center atom j is in(j) x out(j).  N atoms, E edges.
struct TileGraph {
  int64_t num_nodes;
  const int64_t* in_ptr;       // [N+1]  in(j) = edges in_ptr[j] .. in_ptr[j+1], those that end at j
  const int64_t* out_ptr;      // [N+1]
  const int64_t* out_edge;     // [E]    out(j) = out_edge[out_ptr[j] .. out_ptr[j+1]], those that start at j
  const int64_t* rev;          // [E]    the opposite edge, or -1
  const int64_t* triplet_ptr;  // [N+1]  cumulative |in(j)| * |out(j)|
};

namespace cuda {

// Into how many parts each tile is divided among blocks, by the number of atoms: of few atoms otherwise a block's time
// with one tile would be that of the pass.
inline int64_t tile_parts(int64_t num_nodes) {
  constexpr int64_t kBlocksWanted = 512, kMostParts = 4;
  const int64_t parts = kBlocksWanted / (num_nodes < 1 ? 1 : num_nodes);
  return parts < 1 ? 1 : parts > kMostParts ? kMostParts : parts;
}

}  // namespace cuda

// The double backward is the forward and the backward pass on dual numbers.
enum class Pass { kForward, kBackward, kDoubleBackward };

// The instruction set that the CPU kernels run on: "baseline", "avx2" or "avx512".
// SPHERENET_FAST_CPU in the environment may choose a lesser one than the processor has.
const char* cpu_instruction_set();

// sums[k][i] = sum over chunks of parts[chunk, sizes[0] + .. + sizes[k-1] + i], in the order of the chunks
template <class T>
struct ChunkSums {
  int64_t chunks;
  const T* parts;    // [chunks, all sizes together]
  int64_t sizes[4];  // 0 where there is none
  T* sums[4];        // [sizes[k]] each
};
template <class T>
void sum_chunks(const ChunkSums<T>& call);

// The kernels in this namespace run on a GPU: every pointer is to device memory, work is enqueued on a stream of the
// current device and nothing waits for it. They throw std::runtime_error that names the kernel and the cause if a
// launch fails. Rows of edges past in_ptr[N] and columns of points past triplet_ptr[N] (the padding of a graph of fixed
// capacity) are written as zeros.
namespace cuda {

using Stream = void*;  // cudaStream_t

template <class T>
void sum_chunks(const ChunkSums<T>& call, Stream stream);

}  // namespace cuda
}  // namespace spherenet
