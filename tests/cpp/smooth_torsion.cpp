// Runs the CUDA kernels of the smooth torsion: all passes, float and double, with columns of padding.
#ifdef SPHERENET_FAST_CUDA_ON_CPU
#include "../../csrc/math/smooth_torsion.h"

#include "registered.h"

namespace spherenet::test {
namespace {

constexpr int64_t kExtraPairs = 3;  // columns past the last pair, which are written as zeros

// Watched by a sanitizer, a thousand pairs take their time.
bool is_large(const System& system) { return system.num_triplets() > 1000; }

template <class T>
void run_pass(const System& system, SmoothTorsionCall<T> call, Pass pass) {
  const int64_t num_edges = system.num_edges();
  const bool vjp = pass != Pass::kForward;
  auto torsion = unwritten<T>(pass != Pass::kBackward ? 2 * call.num_triplets : 0);
  const int64_t parts = vjp ? cuda::tile_parts(system.num_nodes()) : 0;
  auto sums = unwritten<T>((vjp + parts) * 4 * num_edges), scratch = unwritten<T>(parts * 8 * num_edges);
  call.torsion = torsion.data();
  call.grad_direction_in = sums.data();
  call.grad_fade = sums.data() + 3 * num_edges;
  call.grad_direction_out = sums.data() + parts * 4 * num_edges;
  call.scratch = scratch.data();
  if (!vjp) call.grad_torsion = nullptr;
  if (pass != Pass::kDoubleBackward) call.direction_tangent = call.fade_tangent = nullptr;
  cuda::smooth_torsion(call, num_edges, pass, nullptr);
  for (const auto& array : {torsion, sums}) check_written("smooth_torsion", array);
}

template <class T>
void run_all(const System& system, bool even) {
  Random random(8);
  const int64_t num_edges = system.num_edges(), num_triplets = system.num_triplets() + kExtraPairs;
  std::vector<T> direction(system.vec.begin(), system.vec.end());
  for (int64_t e = 0; e < num_edges; ++e) {
    T* d = direction.data() + 3 * e;
    const T length = std::hypot(d[0], d[1], d[2]);
    for (int k = 0; k < 3; ++k) d[k] /= length;
  }
  auto fade = random.numbers<T>(num_edges);
  for (T& f : fade) f = std::fabs(f);
  const auto direction_tangent = random.numbers<T>(3 * num_edges), fade_tangent = random.numbers<T>(num_edges);
  const auto grad_torsion = random.numbers<T>(2 * num_triplets);
  SmoothTorsionCall<T> call{};
  call.graph = system.graph();
  call.num_triplets = num_triplets;
  call.even = even;
  call.direction = direction.data();
  call.fade = fade.data();
  call.direction_tangent = direction_tangent.data();
  call.fade_tangent = fade_tangent.data();
  call.grad_torsion = grad_torsion.data();
  for (const Pass pass : {Pass::kForward, Pass::kBackward, Pass::kDoubleBackward})
    if (pass != Pass::kBackward || !is_large(system)) run_pass(system, call, pass);
}

void smooth_torsions(const System& system) {
  run_all<float>(system, false);
  if (!is_large(system)) run_all<double>(system, true);
}

const Registered kRegistered("smooth_torsion", smooth_torsions);

}  // namespace
}  // namespace spherenet::test
#endif
