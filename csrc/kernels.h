// The seam between operators and kernels: argument structs (pointers and sizes, no torch) and kernel declarations.
#pragma once
#include <cstdint>

#include "math/macros.h"

namespace spherenet {

// The graph, in tiles: everything around centre atom j is in(j) x out(j).  N atoms, E edges.
struct TileGraph {
  int64_t num_nodes;
  const int64_t* in_ptr;    // [N+1]  in(j) = edges in_ptr[j] .. in_ptr[j+1], those that end at j
  const int64_t* out_ptr;   // [N+1]
  const int64_t* out_edge;  // [E]    out(j) = out_edge[out_ptr[j] .. out_ptr[j+1]], those that start at j
  const int64_t* rev;       // [E]    the opposite edge, or -1
  const int64_t* pair_ptr;  // [N+1]  cumulative |in(j)| * |out(j)|
};

struct GatedSumShape {
  int channels;       // C
  int num_spherical;  // L, at most 8; 0 without angle
  int num_radial;     // K
  int angle_size;     // P; 0 without angle
  int torsion_size;   // Q; 0 without torsion
  bool released;      // harmonic h meets radial order h mod L instead of its own l
  bool angle_at_receiver;  // of e = j->i: between i->j and i->k; needs `direction` to hold vectors, and Q = 0

  SN_HD int64_t harmonics() const { return int64_t(num_spherical) * num_spherical; }
  SN_HD int64_t angle_weight() const { return int64_t(angle_size) * num_spherical * num_radial; }
  SN_HD int64_t angle_up() const { return int64_t(channels) * angle_size; }
  SN_HD int64_t torsion_weight() const { return torsion_size * harmonics() * num_radial; }
  SN_HD int64_t torsion_up() const { return int64_t(channels) * torsion_size; }
  SN_HD int64_t weights() const { return angle_weight() + angle_up() + torsion_weight() + torsion_up(); }
};

// The differentiable inputs, or one tangent of each. Pointers of absent inputs are null; so are tangents that are 0.
template <class T>
struct GatedSumInputs {
  const T* x;               // [E, C]
  const T* radial;          // [E, L, K]
  const T* direction;       // [E, 3]  unit vectors, sender to receiver (with angle_at_receiver: of any length)
  const T* angle_weight;    // [P, L, K]
  const T* angle_up;        // [C, P]
  const T* torsion_weight;  // [Q, L*L, K]
  const T* torsion_up;      // [C, Q]
  const T* point;           // [2, pairs]  re and im of the torsions; null where `reference` says what they are
};

// Gradients are null where nobody asks. Everything else is written in full.
template <class T>
struct GatedSumGradients {
  T* x;              // [E, C]
  T* radial;         // [E, L, K]
  T* direction_in;   // [E, 3]  an edge as neighbour or reference, in its receiver's tile
  T* direction_out;  // [E, 3]  the same edge as axis, in its sender's tile
  T* weights;        // [chunks, shape.weights()]: angle_weight, angle_up, torsion_weight, torsion_up; one row a chunk
  T* point;          // [2, pairs]
};

template <class T>
struct GatedSumCall {
  TileGraph graph;
  GatedSumShape shape;
  int64_t num_pairs;         // columns of point
  const int32_t* reference;  // [pairs]  see torsion_reference; null without torsion, or where there is a point
  GatedSumInputs<T> inputs;
  GatedSumInputs<T> tangents;  // cotangents of the gradients; read by the double backward alone
  const T* grad_out;           // [E, C]; null in the forward pass
  T* out;                      // [E, C]  the sum, or its tangent; null in the backward pass
  GatedSumGradients<T> grads;
};

enum class Pass { kForward, kBackward, kDoubleBackward };

// Work is cut into chunks of whole tiles that depend on the graph alone, so results do not depend on the thread count.
struct Chunks {
  int64_t count;
  int64_t total;  // pairs + atoms, the measure of work
};
Chunks gated_sum_chunks(const TileGraph& graph);

// Prepares weights once, then lets run(chunk) be called for every chunk in any order and from any thread.
struct GatedSumHandle {
  void* state;
  void (*run)(const void* state, int64_t chunk);
  void (*destroy)(void* state);
};

template <class T>
class GatedSum {
 public:
  GatedSum(const GatedSumCall<T>& call, Pass pass);
  ~GatedSum() { handle_.destroy(handle_.state); }
  GatedSum(const GatedSum&) = delete;
  GatedSum& operator=(const GatedSum&) = delete;
  void run(int64_t chunk) const { handle_.run(handle_.state, chunk); }

 private:
  GatedSumHandle handle_;
};

// The instruction set that the CPU kernels run on: "baseline", "avx2" or "avx512".
// SPHERENET_FAST_CPU in the environment may choose a lesser one than the processor has.
const char* cpu_instruction_set();

// Reference neighbours of the tiles [begin, end); see torsion_reference.cpp.
template <class T>
void torsion_reference(const TileGraph& graph, const T* vec /* [E,3] */, int32_t* reference /* [pairs] */,
                       int64_t begin, int64_t end);

// re and im of the smooth torsion of all pairs, see math/smooth_torsion.h. Tangents are null where 0.
template <class T>
struct SmoothTorsionCall {
  TileGraph graph;
  int64_t num_pairs;           // columns of point and grad_point
  bool even;                   // under reflection
  const T* direction;          // [E, 3]  unit vectors, sender to receiver
  const T* fade;               // [E]     weight of the edge's sender as a neighbor of its receiver
  const T* direction_tangent;  // [E, 3]
  const T* fade_tangent;       // [E]
  const T* grad_point;         // [2, pairs]  null in the forward pass
  T* point;                    // [2, pairs]  the point, or its tangent; null in the backward pass
  T* grad_direction_in;        // [E, 3]  an edge as neighbor, in its receiver's tile
  T* grad_direction_out;       // [E, 3]  the same edge as axis, in its sender's tile
  T* grad_fade;                // [E]
  T* scratch;                  // [E, 8]  of the backward passes on a GPU
};
template <class T>
void smooth_torsion(const SmoothTorsionCall<T>& call, Pass pass, int64_t begin, int64_t end);  // tiles begin .. end

template <class T>
struct RadialBasisCall {
  int64_t num_edges;
  int num_spherical, num_radial, envelope_exponent;
  double cutoff;
  const T* distance;           // [E]
  const T* frequency;          // [K]
  const double* roots;         // [L, K]
  const double* scale;         // [L, K]
  const T* grad_bessel;        // [E, K]
  const T* grad_radial;        // [E, L, K]
  const T* distance_tangent;   // [E]  or null, which is 0
  const T* frequency_tangent;  // [K]  or null
  T* bessel;                   // [E, K]     the value, or its tangent
  T* radial;                   // [E, L, K]
  T* grad_distance;            // [E]
  T* grad_frequency;           // [chunks, K]
};
constexpr int64_t kRadialBasisChunk = 128;  // edges
template <class T>
void radial_basis(const RadialBasisCall<T>& call, Pass pass, int64_t chunk);

// out[e, c] = x[e, c] filter[e, c],  filter[e, c] = sum over k of bessel[e, k] weight[c, k].  Tangents are null where 0.
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

// y = silu(x), element by element over [begin, end); each array [size], all distinct.
template <class T>
struct SiluCall {
  const T* x;
  const T* grad;     // cotangent of y; null in the forward pass
  const T* tangent;  // cotangent of grad_x; null but in the double backward
  T* y;              // silu(x), or its tangent: the gradient for grad
  T* grad_x;         // silu'(x) grad, or its tangent
};
template <class T>
void silu(const SiluCall<T>& call, Pass pass, int64_t begin, int64_t end);

// out[n] = sum of x[index[k]] (x[k] where index is null) for k in ptr[n] .. ptr[n+1], n in [begin, end)
template <class T>
void segment_sum(const T* x /* [E,C] */, const int64_t* ptr /* [N+1] */, const int64_t* index /* [E] */,
                 int64_t channels, T* out /* [N,C] */, int64_t begin, int64_t end);

// out[n, k] = sum over rows m of a[m, n] b[m, k], for n in [begin, end)
template <class T>
struct OuterSumCall {
  int64_t num_rows, a_columns, b_columns;  // M, N, K
  const T* a;                              // [M, N]
  const T* b;                              // [M, K]
  T* out;                                  // [N, K]
};
template <class T>
void outer_sum(const OuterSumCall<T>& call, int64_t begin, int64_t end);

// out[m, n] = bias[n] + sum over k of x[m, k] weight[n, k], for m in [begin, end)
template <class T>
struct ProductCall {
  int64_t inner, columns;  // K, N
  bool weight_by_inner;    // whether weight lies in memory as [K, N]
  const T* x;              // [M, K]
  const T* weight;         // [N, K], or [K, N]
  const T* bias;           // [N], or null, which is 0
  const T* packed;         // [packed_size]  what pack_product has written; null where packed_size is 0
  T* out;                  // [M, N]
};
constexpr int64_t kProductChunk = 96;  // rows, a multiple of the kernels' tiles
template <class T>
int64_t packed_size(const ProductCall<T>& call);
template <class T>
void pack_product(const ProductCall<T>& call, T* packed);
template <class T>
void product(const ProductCall<T>& call, int64_t begin, int64_t end);

// out[e] = x[index[e]], 0 where index[e] is -1, for e in [begin, end)
template <class T>
void gather(const T* x /* [N,C] */, const int64_t* index /* [E] */, int64_t channels, T* out /* [E,C] */, int64_t begin,
            int64_t end);

// The neighbours in molecules without periodic images: every two atoms of one molecule closer than the cutoff, judged
// in double. The graph is symmetric, so out_ptr is in_ptr. Two steps: count_neighbors writes in_ptr, pair_ptr and
// status, then find_neighbors writes the edges, sorted by receiver, then sender.
template <class T>
struct NeighborCall {
  int64_t num_atoms;
  const T* pos;          // [N, 3]
  const int64_t* batch;  // [N]  molecule of each atom, ascending; null: one molecule
  double cutoff;
  int64_t* in_ptr;  // [N+1]
  // count_neighbors
  int64_t edge_capacity, pair_capacity;  // -1: no limit
  int32_t* degree;                       // [N]  scratch: neighbours of each atom, -1 where something is wrong with it
  int64_t* pair_ptr;                     // [N+1]  all 0, as in_ptr, where more is found than fits or anything is wrong
  int64_t* status;  // [3]  edges found, pairs found, and atoms where a coordinate is not finite, molecule numbers fall
                    //      or are negative, or another atom is at the same place
  // find_neighbors
  int64_t num_edges;    // rows E of the arrays below; those past in_ptr[N] are padding
  int64_t* edge_index;  // [2, E]  senders, receivers; -1 in padding
  int64_t* out_edge;    // [E]     in padding the row's own number
  int64_t* rev;         // [E]     -1 in padding
};
template <class T>
void count_neighbors(const NeighborCall<T>& call, int64_t begin, int64_t end);  // degree of atoms begin .. end
template <class T>
void neighbor_pointers(const NeighborCall<T>& call);  // in_ptr, pair_ptr and status from degree
template <class T>
void find_neighbors(const NeighborCall<T>& call, int64_t begin, int64_t end);  // senders and receivers of atoms' edges
template <class T>
void mirror_neighbors(const NeighborCall<T>& call, int64_t begin, int64_t end);  // out_edge and rev of edges

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

// The same on a GPU (but outer_sum and product): every pointer is to device memory, work is enqueued on a stream of the
// current device and nothing waits for it. They throw std::runtime_error that names the kernel and the cause if a
// launch fails. Rows of edges past in_ptr[N] and columns of points past pair_ptr[N] (the padding of a graph of fixed
// capacity) are written as zeros.
namespace cuda {

using Stream = void*;  // cudaStream_t

template <class T>
void radial_basis(const RadialBasisCall<T>& call, Pass pass, Stream stream);  // grad_frequency [chunks, K] as above
template <class T>
void torsion_reference(const TileGraph& graph, const T* vec, int32_t* reference, Stream stream);
template <class T>
void smooth_torsion(const SmoothTorsionCall<T>& call, int64_t num_edges, Pass pass, Stream stream);

constexpr int kGatedSumChunks = 256;  // rows of GatedSumGradients::weights; constant, so that sums have the same bits
template <class T>
void gated_sum(const GatedSumCall<T>& call, int64_t num_edges, Pass pass, bool allow_tf32, Stream stream);

template <class T>
void count_neighbors(const NeighborCall<T>& call, Stream stream);
template <class T>
void find_neighbors(const NeighborCall<T>& call, Stream stream);

constexpr int64_t kRadialFilterChunk = 32;  // edges
template <class T>
void radial_filter(const RadialFilterCall<T>& call, Pass pass, Stream stream);

template <class T>
void silu(const SiluCall<T>& call, Pass pass, int64_t size, Stream stream);
template <class T>
void segment_sum(const T* x, const int64_t* ptr, const int64_t* index, int64_t num_segments, int64_t channels, T* out,
                 Stream stream);
template <class T>
void gather(const T* x /* [N,C] */, const int64_t* index /* [E], -1: a row of zeros */, int64_t num_rows /* E */,
            int64_t channels, T* out /* [E,C] */, Stream stream);
template <class T>
void sum_chunks(const ChunkSums<T>& call, Stream stream);

}  // namespace cuda
}  // namespace spherenet
