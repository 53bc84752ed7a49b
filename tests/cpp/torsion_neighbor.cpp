// Tries the kernel that finds the neighbors which torsions are measured to, in float and double.
// Built with SPHERENET_FAST_CUDA_ON_CPU it runs the CUDA kernels, else those for the CPU.
#include "../../csrc/math/torsion_neighbor.h"

#include "passes.h"

namespace spherenet::test {
namespace {

template <class T>
std::vector<int32_t> codes_of(const System& system) {
  std::vector<int32_t> found(system.num_triplets(), -9);
  const std::vector<T> vec(system.vec.begin(), system.vec.end());
#ifdef SPHERENET_FAST_CUDA_ON_CPU
  cuda::torsion_neighbor(system.graph(), vec.data(), found.data(), nullptr);
#else
  torsion_neighbor(system.graph(), vec.data(), found.data(), 0, system.num_nodes());
#endif
  return found;
}

void check_torsion_neighbors(const System& system) {
  const auto found = codes_of<double>(system);
  check(found == codes_of<float>(system), "the neighbor of a torsion depends on the precision");
  for (int64_t j = 0; j < system.num_nodes(); ++j)
    for (int64_t k = system.triplet_ptr[j]; k < system.triplet_ptr[j + 1]; ++k)
      check(found[k] >= kVanishing && found[k] < system.in_ptr[j + 1] - system.in_ptr[j],
            "the neighbor of a torsion is out of range");
}

const Registered kRegistered("torsion_neighbor", check_torsion_neighbors);

}  // namespace

std::vector<int32_t> torsion_codes(const System& system) { return codes_of<double>(system); }

}  // namespace spherenet::test
