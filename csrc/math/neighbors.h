// Who is whose neighbor: the distance of two atoms, and the molecule that an atom belongs to.
#pragma once
#include <cmath>

#include "../kernels.h"

namespace spherenet {

constexpr double kCoincident = 1e-6;  // in the unit of the positions; closer atoms have no direction between them

// Products and sums are rounded one by one: no fused multiply-add may decide who is a neighbor on one device alone.
SN_HD double rounded_product(double a, double b) {
#ifdef __CUDA_ARCH__
  return __dmul_rn(a, b);
#else
  return a * b;
#endif
}
SN_HD double rounded_sum(double a, double b) {
#ifdef __CUDA_ARCH__
  return __dadd_rn(a, b);
#else
  return a + b;
#endif
}

// |a - b|, exactly the same for (b, a). NaN where a coordinate is not a number.
template <class T>
SN_HD double distance(const T* a /* [3] */, const T* b /* [3] */) {
  const double x = double(a[0]) - double(b[0]), y = double(a[1]) - double(b[1]), z = double(a[2]) - double(b[2]);
  return std::sqrt(rounded_sum(rounded_sum(rounded_product(x, x), rounded_product(y, y)), rounded_product(z, z)));
}

template <class T>
SN_HD bool is_finite(const T* a /* [3] */) {
  return std::isfinite(double(a[0])) && std::isfinite(double(a[1])) && std::isfinite(double(a[2]));
}

// The atoms begin .. end of one molecule.
struct AtomRange {
  int64_t begin, end;
};

// The first atom from `begin` on whose molecule is at least `molecule`; batch [count] ascends.
SN_HD int64_t first_atom_of(const int64_t* batch, int64_t begin, int64_t count, int64_t molecule) {
  while (begin < count) {
    const int64_t middle = begin + (count - begin) / 2;
    if (batch[middle] < molecule) {
      begin = middle + 1;
    } else {
      count = middle;
    }
  }
  return begin;
}

// The molecule of an atom; all atoms where batch [num_atoms] is null.
SN_HD AtomRange molecule_of(const int64_t* batch, int64_t num_atoms, int64_t atom) {
  if (!batch) return {0, num_atoms};
  const int64_t begin = first_atom_of(batch, 0, atom, batch[atom]);
  return {begin, first_atom_of(batch, atom, num_atoms, batch[atom] + 1)};
}

// Whether the molecule numbers fall, or are negative, at an atom.
SN_HD bool misnumbered(const int64_t* batch, int64_t atom) {
  return batch && (atom ? batch[atom] < batch[atom - 1] : batch[0] < 0);
}

// The reverse of edge sender -> receiver: the one in in(sender), where senders ascend, that comes from the receiver; -1
// if there is none.
SN_HD int64_t reverse_edge(const int64_t* senders, const int64_t* in_ptr, int64_t sender, int64_t receiver) {
  const int64_t end = in_ptr[sender + 1], found = first_atom_of(senders, in_ptr[sender], end, receiver);
  return found < end && senders[found] == receiver ? found : -1;
}

// ---- the kernel's arguments: pointers and sizes ---------------------------------------------------------------------

// The neighbors in molecules without periodic images: every two atoms of one molecule closer than the cutoff, judged
// in double. The graph is symmetric, so out_ptr is in_ptr. Two steps: count_neighbors writes in_ptr, triplet_ptr and
// status, then find_neighbors writes the edges, sorted by receiver, then sender.
template <class T>
struct NeighborCall {
  int64_t num_atoms;
  const T* pos;          // [N, 3]
  const int64_t* batch;  // [N]  molecule of each atom, ascending; null: one molecule
  double cutoff;
  int64_t* in_ptr;  // [N+1]
  // count_neighbors
  int64_t edge_capacity, triplet_capacity;  // -1: no limit
  int32_t* degree;                          // [N]  scratch: neighbors of each atom, -1 where something is wrong with it
  int64_t* triplet_ptr;  // [N+1]  all 0, as in_ptr, where more is found than fits or anything is wrong
  int64_t* status;  // [3]  edges found, triplets found, and atoms where a coordinate is not finite, molecule numbers
                    //      fall or are negative, or another atom is at the same place
  // find_neighbors
  int64_t num_edges;    // rows E of the arrays below; those past in_ptr[N] are padding
  int64_t* edge_index;  // [2, E]  senders, receivers; -1 in padding
  int64_t* out_edge;    // [E]     in padding the row's own number
  int64_t* rev;         // [E]     -1 in padding
};
template <class T>
void count_neighbors(const NeighborCall<T>& call, int64_t begin, int64_t end);  // degree of atoms begin .. end
template <class T>
void neighbor_pointers(const NeighborCall<T>& call);  // in_ptr, triplet_ptr and status from degree
template <class T>
void find_neighbors(const NeighborCall<T>& call, int64_t begin, int64_t end);  // senders and receivers of atoms' edges
template <class T>
void mirror_neighbors(const NeighborCall<T>& call, int64_t begin, int64_t end);  // out_edge and rev of edges

namespace cuda {

template <class T>
void count_neighbors(const NeighborCall<T>& call, Stream stream);
template <class T>
void find_neighbors(const NeighborCall<T>& call, Stream stream);

}  // namespace cuda

}  // namespace spherenet
