// Tries the kernels of the gated sum: all passes, float and double, whatever is asked for.
// Built with SPHERENET_FAST_CUDA_ON_CPU it runs the CUDA kernels, else those for the CPU.
#include "../../csrc/math/gated_sum.h"

#include "passes.h"

namespace spherenet::test {
namespace {

#ifndef SPHERENET_FAST_CUDA_ON_CPU

template <class T>
GatedSumInputs<T> pointers(const Arrays<T>& arrays) {
  const auto at = [&](size_t k) { return arrays.empty() || arrays[k].empty() ? nullptr : arrays[k].data(); };
  return {at(0), at(1), at(2), at(3), at(4), at(5), at(6)};
}

// Which gradients are asked for, besides that of x.
struct Groups {
  bool geometry = true, weights = true;
};

// inputs: x, radial, direction and the four weights; those that the shape leaves out are empty.
template <class T>
Result<T> gated_sum(const System& system, const GatedSumShape& shape, const std::vector<int32_t>& codes, Pass pass,
                    const Arrays<T>& inputs, const Arrays<T>& cotangents, const Arrays<T>& tangents,
                    Groups asked = {}) {
  const int64_t chunks = gated_sum_chunks(system.graph()).count, num_edges = system.num_edges();
  const bool vjp = pass != Pass::kForward, geometry = vjp && asked.geometry && shape.angle_size;
  Result<T> out;
  auto values = unwritten<T>(pass == Pass::kBackward ? 0 : num_edges * shape.channels);
  auto grad_x = unwritten<T>(vjp ? num_edges * shape.channels : 0);
  auto grad_radial = unwritten<T>(geometry ? int64_t(inputs[1].size()) : 0);
  auto inward = unwritten<T>(geometry ? 3 * num_edges : 0), outward = inward;
  auto weights = unwritten<T>(vjp && asked.weights ? chunks * shape.weights_size() : 0);

  GatedSumCall<T> call{};
  call.graph = system.graph();
  call.shape = shape;
  call.measured_to = shape.torsion_size ? codes.data() : nullptr;
  call.inputs = pointers(inputs);
  call.tangents = pointers(tangents);
  call.grad_out = vjp ? cotangents[0].data() : nullptr;
  call.out = pass == Pass::kBackward ? nullptr : values.data();
  call.grads = {grad_x.data(), geometry ? grad_radial.data() : nullptr, geometry ? inward.data() : nullptr,
                geometry ? outward.data() : nullptr, asked.weights ? weights.data() : nullptr};
  const GatedSum<T> kernel(call, pass);
  for (int64_t chunk = chunks - 1; chunk >= 0; --chunk) kernel.run(chunk);  // any order will do

  if (pass != Pass::kBackward) out.values = {values};
  if (!vjp) return out;
  for (size_t i = 0; i < inward.size(); ++i) inward[i] += outward[i];
  out.grads = {grad_x, grad_radial, inward};
  if (!asked.weights) return out;
  const T* from = weights.data();
  for (int64_t size : {shape.angle_weight_size(), shape.angle_expand_size(), shape.torsion_weight_size(),
                       shape.torsion_expand_size()}) {
    std::vector<T> sum(size, 0);
    for (int64_t chunk = 0; chunk < chunks; ++chunk)
      for (int64_t i = 0; i < size; ++i) sum[i] += from[chunk * shape.weights_size() + i];
    out.grads.push_back(sum);
    from += size;
  }
  return out;
}

void check_gated_sum(const System& system, const GatedSumShape& shape, const std::vector<int32_t>& codes) {
  Random random(3);
  const int64_t num_edges = system.num_edges();
  const bool angle = shape.angle_size;
  std::vector<double> direction;
  for (int64_t e = 0; angle && e < num_edges; ++e) {
    const double* v = system.vec.data() + 3 * e;
    const double length = shape.angle_at_receiver ? 1 : std::hypot(v[0], v[1], v[2]);
    for (int k = 0; k < 3; ++k) direction.push_back(v[k] / length);
  }
  const Arrays<double> inputs = {
      random.numbers<double>(num_edges * shape.channels),
      random.numbers<double>(angle ? num_edges * shape.num_spherical * shape.num_radial : 0),
      direction,
      random.numbers<double>(shape.angle_weight_size(), 0.3),
      random.numbers<double>(shape.angle_expand_size(), 0.3),
      random.numbers<double>(shape.torsion_weight_size(), 0.1),
      random.numbers<double>(shape.torsion_expand_size(), 0.3),
  };
  const auto kernel = [&](Pass pass, const auto& in, const auto& cotangents, const auto& tangents) {
    return gated_sum(system, shape, codes, pass, in, cotangents, tangents);
  };
  check_passes(kernel, inputs, random);

  // What is asked for does not depend on what else is.
  const Arrays<double> cotangents = {random.numbers<double>(num_edges * shape.channels)};
  const Arrays<double> tangents = like(inputs, random);
  for (const Pass pass : {Pass::kBackward, Pass::kDoubleBackward}) {
    const auto& along = pass == Pass::kBackward ? Arrays<double>{} : tangents;
    const auto run = [&](Groups asked) {
      return gated_sum(system, shape, codes, pass, inputs, cotangents, along, asked);
    };
    const auto all = run({}), only_x = run({false, false}), no_weights = run({true, false}),
               weights = run({false, true});
    check(only_x.values == all.values && only_x.grads[0] == all.grads[0], "gradient of x alone");
    for (size_t k = 0; k < no_weights.grads.size(); ++k)
      check(no_weights.grads[k] == all.grads[k], "gradients without those of the weights");
    for (size_t k = 3; k < all.grads.size(); ++k)
      check(weights.grads[k] == all.grads[k], "gradients of the weights without those of the geometry");
  }

  // Weights without tangents have kernels of their own.
  Arrays<double> zeros = tangents, absent = tangents;
  for (size_t k = 3; k < tangents.size(); ++k) {
    zeros[k].assign(zeros[k].size(), 0);
    absent[k].clear();
  }
  const auto expected = kernel(Pass::kDoubleBackward, inputs, cotangents, zeros);
  const auto found = kernel(Pass::kDoubleBackward, inputs, cotangents, absent);
  const auto single =
      kernel(Pass::kDoubleBackward, converted<float>(inputs), converted<float>(cotangents), converted<float>(absent));
  check_close(found.values[0], expected.values[0], 1e-13, "tangents without those of the weights");
  check_close(single.values[0], expected.values[0], kSingle, "the same in float");
  for (size_t k = 0; k < expected.grads.size(); ++k) {
    check_close(found.grads[k], expected.grads[k], 1e-13, "second derivatives without tangents of the weights");
    check_close(single.grads[k], expected.grads[k], kSingle, "the same in float");
  }
}

void check_gated_sums(const System& system) {
  // channels C, L, K, P, Q, dig, angle at the receiver
  const GatedSumShape shapes[] = {
      {64, 7, 6, 8, 8, false, false}, {20, 3, 4, 9, 3, true, false}, {70, 2, 16, 1, 17, false, false},
      {1, 1, 1, 1, 1, false, false},  {5, 8, 1, 3, 8, true, false},  {12, 4, 2, 8, 0, false, true},
      {9, 0, 0, 0, 0, false, false},
  };
  const auto codes = torsion_codes(system);
  const std::string before = context;
  for (const GatedSumShape& shape : shapes) {
    context = before + ", " + std::to_string(shape.channels) + " channels, L = " + std::to_string(shape.num_spherical);
    check_gated_sum(system, shape, codes);
  }
}

const Registered kRegistered("gated_sum", check_gated_sums);

#else

// The differentiable inputs, or one tangent of each; empty where the shape leaves them out.
template <class T>
struct TriedInputs {
  std::vector<T> x, radial, direction, angle_weight, angle_expand, torsion_weight, torsion_expand, torsion;

  TriedInputs(int64_t num_edges, int64_t num_triplets, const GatedSumShape& shape, Random& random)
      : x(random.numbers<T>(num_edges * shape.channels)),
        radial(random.numbers<T>(num_edges * shape.num_spherical * shape.num_radial)),
        direction(random.numbers<T>(shape.angle_size ? 3 * num_edges : 0)),
        angle_weight(random.numbers<T>(shape.angle_weight_size(), 0.3)),
        angle_expand(random.numbers<T>(shape.angle_expand_size(), 0.3)),
        torsion_weight(random.numbers<T>(shape.torsion_weight_size(), 0.1)),
        torsion_expand(random.numbers<T>(shape.torsion_expand_size(), 0.3)),
        torsion(random.numbers<T>(2 * num_triplets)) {}

  GatedSumInputs<T> pointers() const {
    const auto at = [](const std::vector<T>& array) { return array.empty() ? nullptr : array.data(); };
    return {at(x),
            at(radial),
            at(direction),
            at(angle_weight),
            at(angle_expand),
            at(torsion_weight),
            at(torsion_expand),
            at(torsion)};
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
  const auto blocks = cuda::gated_sum_blocks(system.num_nodes(), shape.weights_size());
  auto direction_in = unwritten<T>(with_geometry ? blocks.parts * 3 * num_edges : 0), direction_out = direction_in;
  auto grad_torsion = unwritten<T>(with_geometry && call.inputs.torsion ? 2 * call.num_triplets : 0);
  auto rows = unwritten<T>(vjp && weights ? blocks.rows() * shape.weights_size() : 0);
  call.out = out.data();
  call.grads = {grad_x.data(),       grad_radial.data(),
                direction_in.data(), direction_out.data(),
                rows.data(),         with_geometry && call.inputs.torsion ? grad_torsion.data() : nullptr};
  if (!vjp) call.grad_out = nullptr;
  if (pass != Pass::kDoubleBackward) call.tangents = {};
  cuda::gated_sum(call, num_edges, pass, allow_tf32, nullptr);
  for (const auto& array : {out, grad_x, grad_radial, direction_in, direction_out, rows, grad_torsion})
    check_written("gated_sum", array);
}

template <class T>
void run_shape(const System& system, const GatedSumShape& shape, bool smooth = false) {
  Random random(3);
  const int64_t num_edges = system.num_edges(), num_triplets = smooth ? system.num_triplets() + 3 : 0;  // 3 of padding
  const TriedInputs<T> inputs(num_edges, num_triplets, shape, random), tangents(num_edges, num_triplets, shape, random);
  const auto grad_out = random.numbers<T>(num_edges * shape.channels);
  const auto codes = torsion_codes(system);

  GatedSumCall<T> call{};
  call.graph = system.graph();
  call.shape = shape;
  call.num_triplets = num_triplets;
  call.measured_to = shape.torsion_size && !smooth ? codes.data() : nullptr;
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

const Registered kRegistered("gated_sum", gated_sums);

#endif

}  // namespace
}  // namespace spherenet::test
