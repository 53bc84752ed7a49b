// What every header of this folder may rely on: host and device functions, and 64-bit offsets.
#pragma once
#include <cstdint>

#if defined(__CUDACC__)
#define SN_HD __host__ __device__ __forceinline__
#else
#define SN_HD inline __attribute__((always_inline))
#endif

namespace spherenet {

using index_t = int64_t;  // offsets over edges and triplets pass 2^31

constexpr int kMaxSpherical = 8;  // l < 8
constexpr int kMaxRadial = 16;

// Codes of the neighbor that a torsion is measured to; values >= 0 are its number within in(j).
constexpr int32_t kNoNeighbor = -1;  // nobody is left: phi = 2 pi
constexpr int32_t kVanishing = -2;   // collinear with the edge, or no triplet: harmonics with m != 0 vanish

}  // namespace spherenet
