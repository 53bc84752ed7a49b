// Neighbors in a batch of open molecules, from all distances within each molecule.
#include "../math/neighbors.h"

namespace spherenet {

template <class T>
void count_neighbors(const NeighborCall<T>& call, int64_t begin, int64_t end) {
  for (int64_t atom = begin; atom < end; ++atom) {
    const AtomRange molecule = molecule_of(call.batch, call.num_atoms, atom);
    const T* own = call.pos + 3 * atom;
    bool wrong = misnumbered(call.batch, atom) || !is_finite(own);
    int32_t count = 0;
    for (int64_t other = molecule.begin; other < molecule.end; ++other) {
      const double length = distance(own, call.pos + 3 * other);
      wrong = wrong || (other != atom && length < kCoincident);
      count += other != atom && length < call.cutoff;
    }
    call.degree[atom] = wrong ? -1 : count;
  }
}

template <class T>
void neighbor_pointers(const NeighborCall<T>& call) {
  int64_t edges = 0, triplets = 0, wrong = 0;
  call.in_ptr[0] = call.triplet_ptr[0] = 0;
  for (int64_t atom = 0; atom < call.num_atoms; ++atom) {
    const int64_t degree = call.degree[atom];
    wrong += degree < 0;
    edges += degree < 0 ? 0 : degree;
    triplets += degree < 0 ? 0 : degree * degree;
    call.in_ptr[atom + 1] = edges;
    call.triplet_ptr[atom + 1] = triplets;
  }
  const bool fits = wrong == 0 && (call.edge_capacity < 0 || edges <= call.edge_capacity) &&
                    (call.triplet_capacity < 0 || triplets <= call.triplet_capacity);
  for (int64_t atom = 0; atom <= call.num_atoms && !fits; ++atom) call.in_ptr[atom] = call.triplet_ptr[atom] = 0;
  call.status[0] = edges;
  call.status[1] = triplets;
  call.status[2] = wrong;
}

template <class T>
void find_neighbors(const NeighborCall<T>& call, int64_t begin, int64_t end) {
  for (int64_t atom = begin; atom < end; ++atom) {
    const AtomRange molecule = molecule_of(call.batch, call.num_atoms, atom);
    int64_t edge = call.in_ptr[atom];
    const int64_t last = call.in_ptr[atom + 1];
    for (int64_t other = molecule.begin; other < molecule.end && edge < last; ++other)
      if (other != atom && distance(call.pos + 3 * atom, call.pos + 3 * other) < call.cutoff) {
        call.edge_index[edge] = other;
        call.edge_index[call.num_edges + edge++] = atom;
      }
    for (; edge < last; ++edge) call.edge_index[edge] = call.edge_index[call.num_edges + edge] = atom;  // not so many
  }
}

template <class T>
void mirror_neighbors(const NeighborCall<T>& call, int64_t begin, int64_t end) {
  const int64_t* receivers = call.edge_index + call.num_edges;
  for (int64_t edge = begin; edge < end; ++edge) {
    if (edge < call.in_ptr[call.num_atoms]) {
      const int64_t reverse = reverse_edge(call.edge_index, call.in_ptr, call.edge_index[edge], receivers[edge]);
      call.rev[edge] = reverse;
      call.out_edge[edge] = reverse < 0 ? edge : reverse;  // exchanging the ends of all edges leaves the list the same
    } else {
      call.edge_index[edge] = call.edge_index[call.num_edges + edge] = call.rev[edge] = -1;
      call.out_edge[edge] = edge;
    }
  }
}

template void count_neighbors(const NeighborCall<float>&, int64_t, int64_t);
template void count_neighbors(const NeighborCall<double>&, int64_t, int64_t);
template void neighbor_pointers(const NeighborCall<float>&);
template void neighbor_pointers(const NeighborCall<double>&);
template void find_neighbors(const NeighborCall<float>&, int64_t, int64_t);
template void find_neighbors(const NeighborCall<double>&, int64_t, int64_t);
template void mirror_neighbors(const NeighborCall<float>&, int64_t, int64_t);
template void mirror_neighbors(const NeighborCall<double>&, int64_t, int64_t);

}  // namespace spherenet
