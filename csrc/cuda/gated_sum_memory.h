// How the gated sum is laid out on a GPU: number types, the sizes of a block's work, its shared memory.
//
// A block of threads takes a tile in portions of up to kNeighbors edges q in(j) by kEdges edges e in out(j), whatever
// the tile's size. First a thread takes the pairs of a q and one or two e: harmonics, contracted as they come with q's
// rows (weights times radial functions, in shared memory) to the coefficients, which stay in shared memory. Then lanes
// take channels, with the matrices `up` in registers.
//
// Shared memory returns 32 numbers a clock to an SM that multiplies and adds 128, so every number that is read should
// meet four others: a row meets two pairs of its thread (more would not fit the registers), a coefficient the four
// channels of its lane.
#pragma once
#include <algorithm>

#include "../math/gated_sum.h"
#include "../math/harmonics.h"
#include "launch.h"

#define SN_DEVICE __device__ __forceinline__

namespace spherenet::cuda {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / kWarp;
constexpr int kRow = 8;                    // basis channels of one filter are handled in rows of eight,
constexpr int kCoefficients = 2 * kRow;    // so a group of coefficients is eight of the angle and eight of the torsion
constexpr int kEdges = 16;                 // edges e of a portion
constexpr size_t kMostShared = 96 * 1024;  // bytes a block; the least that one SM of the architectures built for has

// The number type of a pass, T or Dual<T>, and what of it fits into registers and shared memory. kManyGroups: of the
// coefficients there are several groups, which leaves fewer registers for channels.
template <class T, bool kDual, bool kManyGroups>
struct Numbers {
  using N = std::conditional_t<kDual, Dual<T>, T>;
  static constexpr int kBytes = sizeof(N);                                              // 4, 8 or 16
  static constexpr int kNeighbors = 64 / kBytes;                                        // edges q of a portion
  static constexpr int kPairs = kBytes == 4 ? 2 : 1;                                    // pairs of a thread
  static constexpr int kPairLanes = kEdges / kPairs;                                    // threads that share a q
  static constexpr int kChannels = kBytes == 16 ? 1 : (kManyGroups ? 8 : 16) / kBytes;  // channels of a lane
  static constexpr int kChannelLanes = kChannels == 4 ? 16 : 32;                        // lanes that share a pair
  static constexpr int kWidth = kChannels * kChannelLanes;  // channels that are taken at once
  static constexpr int kTeams = kThreads / kChannelLanes;   // teams of kChannelLanes lanes
  static constexpr int kPad = 16 / kBytes;                  // spreads rows over the banks of shared memory
  static constexpr int kRadialStride = kNeighbors + kPad;
};

// Two and four numbers, read and written as whole vectors.
template <class N>
struct alignas(sizeof(N) == 4 ? 8 : 16) Couple {
  N v[2];
};
template <class N>
struct alignas(16) Quad {
  N v[4];
};
template <class N>
SN_DEVICE void load_row(N (&to)[kRow], const N* from) {
  const Quad<N>* quads = reinterpret_cast<const Quad<N>*>(from);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const Quad<N> quad = quads[half];
#pragma unroll
    for (int k = 0; k < 4; ++k) to[4 * half + k] = quad.v[k];
  }
}
template <class N>
SN_DEVICE void store_row(N* to, const N (&from)[kRow]) {
  Quad<N>* quads = reinterpret_cast<Quad<N>*>(to);
#pragma unroll
  for (int half = 0; half < 2; ++half)
    quads[half] = {from[4 * half], from[4 * half + 1], from[4 * half + 2], from[4 * half + 3]};
}

// What follows from the shape of a call: how much a block holds at a time.
struct GatedSumSizes {
  int neighbors;   // edges q of a portion: kNeighbors, or fewer where these do not fit
  int rows;        // of one q: L of the angle, then L*L of the torsion
  int row_stride;  // numbers between the rows of one q and the next
  int groups;      // of coefficients
  int slot;        // numbers between the coefficients of one pair and the next
  int blocks;      // of kWidth channels
  bool whole_up;   // angle_expand and torsion_expand have eight columns each and can be read as vectors
};

// A block's shared memory.
template <class T, bool kDual, bool kManyGroups>
struct GatedSumMemory {
  using Num = Numbers<T, kDual, kManyGroups>;
  using N = typename Num::N;
  N* rows;          // [neighbors, rows, 8]        sum over n of weight times radial, for one group
  N* radial;        // [L, K, neighbors]           rows kRadialStride apart
  N* coefficients;  // [neighbors, kEdges, groups, 16]
  Vec3<N>* axis;    // [kEdges]                    directions of the edges e
  int64_t* edge;    // [kEdges]                    their numbers
  int* opposite;    // [kEdges]                    the number within in(j) of the opposite edge, or -1
  // Of the backward passes:
  N* grad_rows;          // [neighbors, rows, 8]
  N* grad_coefficients;  // [neighbors, kEdges, groups, 16]   the same place as coefficients where these serve once
  int* source;           // [neighbors, kEdges]    whom the pair is measured to, within in(j); q itself if nobody
  T* up_sums;            // [16, kWidth]

  SN_HD GatedSumMemory(SharedPieces& pieces, const GatedSumShape& shape, const GatedSumSizes& sizes, bool backward) {
    const int pairs = sizes.neighbors * kEdges;
    rows = pieces.take<N>(sizes.neighbors * sizes.row_stride);
    radial = pieces.take<N>(shape.num_spherical * shape.num_radial * Num::kRadialStride);
    coefficients = pieces.take<N>(pairs * sizes.slot);
    axis = pieces.take<Vec3<N>>(kEdges);
    edge = pieces.take<int64_t>(kEdges);
    opposite = pieces.take<int>(kEdges);
    if (!backward) return;
    grad_rows = pieces.take<N>(sizes.neighbors * sizes.row_stride);
    grad_coefficients = sizes.groups * sizes.blocks == 1 ? coefficients : pieces.take<N>(pairs * sizes.slot);
    source = pieces.take<int>(pairs);
    up_sums = pieces.take<T>(kCoefficients * Num::kWidth);
  }
};

inline int gated_sum_groups(const GatedSumShape& shape) {
  return ceil_div(std::max({shape.angle_size, shape.torsion_size, 1}), kRow);
}

// The sizes for as many q a portion as fit, and the bytes of shared memory they take.
template <class T, bool kDual, bool kManyGroups>
GatedSumSizes gated_sum_sizes(const GatedSumCall<T>& call, bool backward, size_t* bytes) {
  using Num = Numbers<T, kDual, kManyGroups>;
  const GatedSumShape& shape = call.shape;
  GatedSumSizes sizes{};
  sizes.rows = shape.num_spherical + (shape.torsion_size ? int(shape.harmonics()) : 0);
  sizes.row_stride = ceil_div(sizes.rows * kRow, 32) * 32 + kRow;
  sizes.groups = gated_sum_groups(shape);
  sizes.slot = sizes.groups * kCoefficients + Num::kPad;
  sizes.blocks = ceil_div(shape.channels, Num::kWidth);
  sizes.whole_up = shape.angle_size == kRow && shape.torsion_size == kRow;
  const T* ups[] = {call.inputs.angle_expand, call.inputs.torsion_expand, call.tangents.angle_expand,
                    call.tangents.torsion_expand};
  for (const T* up : ups) sizes.whole_up = sizes.whole_up && reinterpret_cast<uintptr_t>(up) % alignof(Quad<T>) == 0;
  for (sizes.neighbors = Num::kNeighbors; sizes.neighbors > 0; sizes.neighbors /= 2) {
    if (int64_t(sizes.neighbors) * kEdges * sizes.slot > int64_t(kMostShared)) continue;  // the sum may overflow
    SharedPieces pieces;
    GatedSumMemory<T, kDual, kManyGroups>(pieces, shape, sizes, backward);
    *bytes = pieces.bytes();
    if (*bytes <= kMostShared) return sizes;
  }
  throw std::runtime_error("spherenet_fast: kernel gated_sum: angle_weight, torsion_weight: too many rows, " +
                           std::to_string(shape.angle_size) + " and " + std::to_string(shape.torsion_size));
}

}  // namespace spherenet::cuda
