// Runs the CUDA kernels of the search for neighbors on random molecules: as much room as there are edges, more, and
// less.
#ifdef SPHERENET_FAST_CUDA_ON_CPU
#include "../../csrc/math/neighbors.h"

#include <set>

#include "registered.h"

namespace spherenet::test {
namespace {

template <class T>
void search(const System& system, int64_t more, bool batched) {
  const int64_t N = system.num_nodes();
  Random random(N);
  const std::vector<T> pos = random.numbers<T>(3 * N, 2);
  std::vector<int64_t> batch(N);
  for (int64_t n = 0; n < N; ++n) batch[n] = n / 7;
  std::vector<int64_t> in_ptr(N + 1, -9), triplet_ptr(N + 1, -9), status(3, -9);
  std::vector<int32_t> degree(N, -9);
  NeighborCall<T> call{};
  call.num_atoms = N;
  call.pos = pos.data();
  call.batch = batched ? batch.data() : nullptr;
  call.cutoff = 2.5;
  call.in_ptr = in_ptr.data();
  call.edge_capacity = call.triplet_capacity = -1;
  call.degree = degree.data();
  call.triplet_ptr = triplet_ptr.data();
  call.status = status.data();
  cuda::count_neighbors(call, nullptr);
  call.num_edges = status[0] + more < 0 ? 0 : status[0] + more;
  call.edge_capacity = call.num_edges;
  cuda::count_neighbors(call, nullptr);
  std::vector<int64_t> edge_index(2 * call.num_edges, -9), out_edge(call.num_edges, -9), rev(call.num_edges, -9);
  call.edge_index = edge_index.data();
  call.out_edge = out_edge.data();
  call.rev = rev.data();
  cuda::find_neighbors(call, nullptr);
  bool ok = in_ptr[N] == (more < 0 && status[0] > 0 ? 0 : status[0]) && status[2] == 0;
  for (const auto* values : {&in_ptr, &triplet_ptr, &edge_index, &out_edge, &rev})
    for (const int64_t value : *values) ok = ok && value != -9;
  for (int64_t e = 0; e < in_ptr[N]; ++e)
    ok = ok && rev[rev[e]] == e && edge_index[rev[e]] == edge_index[call.num_edges + e];
  if (ok) return;
  ++failures;
  std::fprintf(stderr, "neighbors: wrong for %lld atoms\n", static_cast<long long>(N));
}

void searches(const System& system) {
  // Atoms are random: what counts is how many there are. Each is compared with all of its molecule's, which takes
  // minutes under a sanitizer.
  static std::set<int64_t> tried;
  if (system.num_nodes() > 100 || !tried.insert(system.num_nodes()).second) return;
  for (const bool batched : {false, true})
    for (const int64_t more : {0, 3, -1}) {
      search<float>(system, more, batched);
      search<double>(system, more, batched);
    }
}

const Registered kRegistered("neighbors", searches);

}  // namespace
}  // namespace spherenet::test
#endif
