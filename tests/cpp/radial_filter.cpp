// Tries the kernels of the product with a linear function of the distance basis: all passes, float and double.
// Built with SPHERENET_FAST_CUDA_ON_CPU it runs the CUDA kernels, else those for the CPU.
#include "../../csrc/math/radial_filter.h"

#include "passes.h"

namespace spherenet::test {
namespace {

#ifndef SPHERENET_FAST_CUDA_ON_CPU

// inputs: x, bessel, weight
template <class T>
Result<T> radial_filter(int64_t num_edges, Pass pass, const Arrays<T>& inputs, const Arrays<T>& cotangents,
                        const Arrays<T>& tangents) {
  const int64_t chunks = (num_edges + kRadialFilterChunk - 1) / kRadialFilterChunk, weights = int64_t(inputs[2].size());
  const bool vjp = pass != Pass::kForward, values = pass != Pass::kBackward;
  auto out = unwritten<T>(values ? inputs[0].size() : 0), grad_x = unwritten<T>(vjp ? inputs[0].size() : 0);
  auto grad_bessel = unwritten<T>(vjp ? inputs[1].size() : 0), parts = unwritten<T>(vjp ? chunks * weights : 0);
  RadialFilterCall<T> call{};
  call.num_edges = num_edges;
  call.num_radial = int(inputs[1].size() / num_edges);
  call.channels = int(inputs[0].size() / num_edges);
  call.x = inputs[0].data(), call.bessel = inputs[1].data(), call.weight = inputs[2].data();
  if (vjp) call.grad_out = cotangents[0].data();
  if (pass == Pass::kDoubleBackward)
    call.x_tangent = tangents[0].data(), call.bessel_tangent = tangents[1].data(),
    call.weight_tangent = tangents[2].data();
  call.out = out.data(), call.grad_x = grad_x.data();
  call.grad_bessel = grad_bessel.data(), call.grad_weight = parts.data();
  for (int64_t chunk = 0; chunk < chunks; ++chunk) spherenet::radial_filter(call, pass, chunk);

  Result<T> result;
  if (values) result.values = {out};
  if (!vjp) return result;
  std::vector<T> grad_weight(weights, 0);
  for (int64_t i = 0; i < chunks * weights; ++i) grad_weight[i % weights] += parts[i];
  result.grads = {grad_x, grad_bessel, grad_weight};
  return result;
}

void check_radial_filter(int64_t num_edges, int64_t channels, int64_t K) {
  context = std::string(cpu_instruction_set()) + ", radial_filter, " + std::to_string(num_edges) + " edges";
  Random random(7);
  const Arrays<double> inputs = {random.numbers<double>(num_edges * channels), random.numbers<double>(num_edges * K),
                                 random.numbers<double>(channels * K)};
  const auto kernel = [&](Pass pass, const auto& in, const auto& cotangents, const auto& tangents) {
    return radial_filter(num_edges, pass, in, cotangents, tangents);
  };
  check_passes(kernel, inputs, random);
}

void check_radial_filters() {
  check_radial_filter(1, 1, 1);
  check_radial_filter(131, 37, 6);
  check_radial_filter(4, 64, 16);
}

const Registered kRegistered("radial_filter", check_radial_filters);

#else

template <class T>
void radial_filter(const System& system, int H, int K) {
  Random random(7);
  const int64_t E = system.num_edges(), chunks = (E + cuda::kRadialFilterChunk - 1) / cuda::kRadialFilterChunk;
  const auto x = random.numbers<T>(E * H), bessel = random.numbers<T>(E * K), weight = random.numbers<T>(H * K);
  const auto grad = random.numbers<T>(E * H), x_tangent = random.numbers<T>(E * H);
  for (const Pass pass : {Pass::kForward, Pass::kBackward, Pass::kDoubleBackward}) {
    const bool vjp = pass != Pass::kForward;
    auto out = unwritten<T>(pass != Pass::kBackward ? E * H : 0), grad_x = unwritten<T>(vjp ? E * H : 0);
    auto grad_bessel = unwritten<T>(vjp ? E * K : 0), parts = unwritten<T>(vjp ? chunks * H * K : 0);
    cuda::radial_filter<T>({E, H, K, x.data(), bessel.data(), weight.data(), vjp ? grad.data() : nullptr,
                            pass == Pass::kDoubleBackward ? x_tangent.data() : nullptr, nullptr, nullptr, out.data(),
                            grad_x.data(), grad_bessel.data(), parts.data()},
                           pass, nullptr);
    for (const auto& written : {out, grad_x, grad_bessel, parts}) check_written("radial_filter", written);
  }
}

void radial_filters(const System& system) {
  radial_filter<float>(system, 140, 6);
  radial_filter<double>(system, 64, 16);
}

const Registered kRegistered("radial_filter", radial_filters);

#endif

}  // namespace
}  // namespace spherenet::test
