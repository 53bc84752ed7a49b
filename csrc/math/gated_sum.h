// The gated sum's arguments: pointers and sizes.
#pragma once
#include "../kernels.h"

namespace spherenet {

struct GatedSumShape {
  int channels;            // C
  int num_spherical;       // L, at most 8; 0 without angle
  int num_radial;          // K
  int angle_size;          // P; 0 without angle
  int torsion_size;        // Q; 0 without torsion
  bool dig;                // harmonic h meets radial order h mod L instead of its own l
  bool angle_at_receiver;  // of e = j->i: between i->j and i->k; needs `direction` to hold vectors, and Q = 0

  SN_HD int64_t harmonics() const { return int64_t(num_spherical) * num_spherical; }
  SN_HD int64_t angle_weight_size() const { return int64_t(angle_size) * num_spherical * num_radial; }
  SN_HD int64_t angle_expand_size() const { return int64_t(channels) * angle_size; }
  SN_HD int64_t torsion_weight_size() const { return torsion_size * harmonics() * num_radial; }
  SN_HD int64_t torsion_expand_size() const { return int64_t(channels) * torsion_size; }
  SN_HD int64_t weights_size() const {
    return angle_weight_size() + angle_expand_size() + torsion_weight_size() + torsion_expand_size();
  }
};

// The differentiable inputs, or one tangent of each. Pointers of absent inputs are null; so are tangents that are 0.
template <class T>
struct GatedSumInputs {
  const T* x;               // [E, C]
  const T* radial;          // [E, L, K]
  const T* direction;       // [E, 3]  unit vectors, sender to receiver (with angle_at_receiver: of any length)
  const T* angle_weight;    // [P, L, K]
  const T* angle_expand;    // [C, P]
  const T* torsion_weight;  // [Q, L*L, K]
  const T* torsion_expand;  // [C, Q]
  const T* torsion;         // [2, triplets]  re and im of smooth torsions; null where `measured_to` says what they are

  bool has_weights() const { return angle_weight || angle_expand || torsion_weight || torsion_expand; }
};

// Gradients are null where nobody asks. Everything else is written in full.
template <class T>
struct GatedSumGradients {
  T* x;              // [E, C]
  T* radial;         // [E, L, K]
  T* direction_in;   // [parts, E, 3]  an edge as neighbor or as the other one, in its receiver's tile
  T* direction_out;  // [parts, E, 3]  the same edge as axis, in its sender's tile; parts of a tile, one on a CPU
  T* weights;  // [rows, shape.weights_size()]  angle_weight, angle_expand, torsion_weight, torsion_expand; a row for
               // each chunk, on a GPU for each block
  T* torsion;  // [2, triplets]
};

template <class T>
struct GatedSumCall {
  TileGraph graph;
  GatedSumShape shape;
  int64_t num_triplets;        // columns of torsion
  const int32_t* measured_to;  // [triplets]  codes as in macros.h; null without torsion, or where it is smooth
  GatedSumInputs<T> inputs;
  GatedSumInputs<T> tangents;  // cotangents of the gradients; read by the double backward alone
  const T* grad_out;           // [E, C]; null in the forward pass
  T* out;                      // [E, C]  the sum, or its tangent; null in the backward pass
  GatedSumGradients<T> grads;
};

// Work is cut into chunks of whole tiles that depend on the graph alone, so results do not depend on the thread count.
struct Chunks {
  int64_t count;
  int64_t total;  // triplets + atoms, the measure of work
};
SN_HD Chunks gated_sum_chunks(const TileGraph& graph) {
  // Small enough to balance a few dozen threads, large enough that a chunk's weight gradients cost little beside it.
  constexpr int64_t kWork = 4096, kMost = 64;
  const int64_t total = graph.num_nodes ? graph.triplet_ptr[graph.num_nodes] + graph.num_nodes : 0;
  const int64_t count = (total + kWork - 1) / kWork;
  return {count < 1 ? 1 : count > kMost ? kMost : count, total};
}

// Prepares weights once, then lets run(chunk) be called for every chunk in any order and from any thread.
struct GatedSumHandle {
  void* state;
  void (*run)(const void* state, int64_t chunk);
  void (*destroy)(void* state);
};
template <class T>
GatedSumHandle prepare_gated_sum(const GatedSumCall<T>& call, Pass pass);

template <class T>
class GatedSum {
 public:
  GatedSum(const GatedSumCall<T>& call, Pass pass) : handle_(prepare_gated_sum(call, pass)) {}
  ~GatedSum() { handle_.destroy(handle_.state); }
  GatedSum(const GatedSum&) = delete;
  GatedSum& operator=(const GatedSum&) = delete;
  void run(int64_t chunk) const { handle_.run(handle_.state, chunk); }

 private:
  const GatedSumHandle handle_;
};

namespace cuda {

// The blocks of the backward pass, a function of sizes alone, so that neither what is asked for nor edges of padding
// change a bit. Every block has a row of weight gradients to itself, and no more tiles than it must: which block runs
// when is then the GPU's choice, and the large tiles hold nobody up.
struct GatedSumBlocks {
  int64_t tiles;                                  // that are taken at the same time
  int64_t parts;                                  // of a tile's edges q
  int64_t rows() const { return tiles * parts; }  // of GatedSumGradients::weights
};
inline GatedSumBlocks gated_sum_blocks(int64_t num_nodes, int64_t weights_size) {
  constexpr int64_t kMostTiles = 1024, kLeastTiles = 256, kMostNumbers = 8 << 20;
  const int64_t nodes = num_nodes < 1 ? 1 : num_nodes;
  const int64_t fit = kMostNumbers / (weights_size < 1 ? 1 : weights_size);  // 32 MB of rows in float32
  const int64_t most = fit < kLeastTiles ? kLeastTiles : fit > kMostTiles ? kMostTiles : fit;
  return {nodes < most ? nodes : most, tile_parts(nodes)};
}
template <class T>
void gated_sum(const GatedSumCall<T>& call, int64_t num_edges, Pass pass, bool allow_tf32, Stream stream);

}  // namespace cuda

}  // namespace spherenet
