// Runs the kernels of the gated sum: all passes, float and double, whatever is asked for.
#include "../../csrc/math/gated_sum.h"
#include "../../csrc/math/torsion_reference.h"
#include "run.h"

namespace spherenet::test {
namespace {

// The differentiable inputs, or one tangent of each; empty where the shape leaves them out.
template <class T>
struct Arrays {
  std::vector<T> x, radial, direction, angle_weight, angle_expand, torsion_weight, torsion_expand, point;

  Arrays(int64_t num_edges, int64_t num_triplets, const GatedSumShape& shape, Random& random)
      : x(random.numbers<T>(num_edges * shape.channels)),
        radial(random.numbers<T>(num_edges * shape.num_spherical * shape.num_radial)),
        direction(random.numbers<T>(shape.angle_size ? 3 * num_edges : 0)),
        angle_weight(random.numbers<T>(shape.angle_weight(), 0.3)),
        angle_expand(random.numbers<T>(shape.angle_expand(), 0.3)),
        torsion_weight(random.numbers<T>(shape.torsion_weight(), 0.1)),
        torsion_expand(random.numbers<T>(shape.torsion_expand(), 0.3)),
        point(random.numbers<T>(2 * num_triplets)) {}

  GatedSumInputs<T> pointers() const {
    const auto at = [](const std::vector<T>& array) { return array.empty() ? nullptr : array.data(); };
    return {
        at(x),    at(radial), at(direction), at(angle_weight), at(angle_expand), at(torsion_weight), at(torsion_expand),
        at(point)};
  }
};

template <class T>
void run_pass(const System& system, GatedSumCall<T> call, Pass pass, bool geometry, bool weights, bool allow_tf32) {
  const GatedSumShape& shape = call.shape;
  const int64_t num_edges = system.num_edges();
  const bool vjp = pass != Pass::kForward, with_geometry = vjp && geometry && shape.angle_size;
  auto out = unwritten<T>(pass != Pass::kBackward ? num_edges * shape.channels : 0);
  auto grad_x = unwritten<T>(vjp ? num_edges * shape.channels : 0);
  auto grad_radial = unwritten<T>(with_geometry ? num_edges * shape.num_spherical * shape.num_radial : 0);
  auto direction_in = unwritten<T>(with_geometry ? 3 * num_edges : 0), direction_out = direction_in;
  auto grad_point = unwritten<T>(with_geometry && call.inputs.point ? 2 * call.num_triplets : 0);
  auto parts = unwritten<T>(vjp && weights ? cuda::kGatedSumChunks * shape.weights() : 0);
  call.out = out.data();
  call.grads = {grad_x.data(),       grad_radial.data(),
                direction_in.data(), direction_out.data(),
                parts.data(),        with_geometry && call.inputs.point ? grad_point.data() : nullptr};
  if (!vjp) call.grad_out = nullptr;
  if (pass != Pass::kDoubleBackward) call.tangents = {};
  cuda::gated_sum(call, num_edges, pass, allow_tf32, nullptr);
  for (const auto& array : {out, grad_x, grad_radial, direction_in, direction_out, parts, grad_point})
    check_written("gated_sum", array);
}

template <class T>
void run_shape(const System& system, const GatedSumShape& shape, bool smooth = false) {
  Random random(3);
  const int64_t num_edges = system.num_edges(), num_triplets = smooth ? system.num_triplets() + 3 : 0;  // 3 of padding
  const Arrays<T> inputs(num_edges, num_triplets, shape, random), tangents(num_edges, num_triplets, shape, random);
  const auto grad_out = random.numbers<T>(num_edges * shape.channels);
  const std::vector<T> vec(system.vec.begin(), system.vec.end());
  std::vector<int32_t> reference(system.num_triplets());
  cuda::torsion_reference(system.graph(), vec.data(), reference.data(), nullptr);

  GatedSumCall<T> call{};
  call.graph = system.graph();
  call.shape = shape;
  call.num_triplets = num_triplets;
  call.reference = shape.torsion_size && !smooth ? reference.data() : nullptr;
  call.inputs = inputs.pointers();
  call.tangents = tangents.pointers();
  call.grad_out = grad_out.data();
  run_pass(system, call, Pass::kForward, true, true, false);
  run_pass(system, call, Pass::kForward, true, true, true);
  for (const Pass pass : {Pass::kBackward, Pass::kDoubleBackward}) {
    run_pass(system, call, pass, true, true, false);
    if (system.name != "four atoms") continue;
    run_pass(system, call, pass, true, false, false);
    run_pass(system, call, pass, false, true, false);
  }
}

// Sanitizers watch every access, which takes minutes where a graph has many triplets.
#if defined(__SANITIZE_THREAD__)
constexpr int64_t kMostPairs = 50;
#else
constexpr int64_t kMostPairs = 400;
#endif

void gated_sums(const System& system) {
  if (system.num_triplets() > kMostPairs) return;
  // channels C, L, K, P, Q, dig, angle at the receiver: one group of coefficients and block of channels, several
  // of both, a smooth torsion, absent filters
  run_shape<float>(system, {64, 2, 2, 8, 8, false, false});
  run_shape<float>(system, {70, 2, 1, 9, 17, true, false});
  run_shape<double>(system, {20, 2, 2, 9, 17, false, false});
  run_shape<float>(system, {12, 3, 2, 8, 8, false, false}, true);
  run_shape<float>(system, {12, 4, 2, 8, 0, false, true});
  run_shape<float>(system, {9, 0, 0, 0, 0, false, false});
}

const Registered kRegistered[] = {{"gated_sum", gated_sums}};

}  // namespace
}  // namespace spherenet::test
