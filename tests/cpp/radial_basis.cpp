// Tries the kernels of the radial basis: all passes, float and double.
// Built with SPHERENET_FAST_CUDA_ON_CPU it runs the CUDA kernels, else those for the CPU.
#include "../../csrc/math/radial_basis.h"

#include "passes.h"

namespace spherenet::test {
namespace {

#ifndef SPHERENET_FAST_CUDA_ON_CPU

// inputs: distance, frequency
template <class T>
Result<T> radial_basis(int L, const Arrays<double>& constants, Pass pass, const Arrays<T>& inputs,
                       const Arrays<T>& cotangents, const Arrays<T>& tangents) {
  const int64_t num_edges = int64_t(inputs[0].size()), K = int64_t(inputs[1].size());
  const int64_t chunks = (num_edges + kRadialBasisChunk - 1) / kRadialBasisChunk;
  const bool vjp = pass != Pass::kForward, values = pass != Pass::kBackward;
  auto bessel = unwritten<T>(values ? num_edges * K : 0), radial = unwritten<T>(values ? num_edges * L * K : 0);
  auto grad_distance = unwritten<T>(vjp ? num_edges : 0), parts = unwritten<T>(vjp ? chunks * K : 0);
  RadialBasisCall<T> call{};
  call.num_edges = num_edges;
  call.num_spherical = L;
  call.num_radial = int(K);
  call.envelope_exponent = 5;
  call.cutoff = 5;
  call.distance = inputs[0].data();
  call.frequency = inputs[1].data();
  call.roots = constants[0].data();
  call.scale = constants[1].data();
  if (vjp) call.grad_bessel = cotangents[0].data(), call.grad_radial = cotangents[1].data();
  if (pass == Pass::kDoubleBackward)
    call.distance_tangent = tangents[0].data(), call.frequency_tangent = tangents[1].data();
  if (values) call.bessel = bessel.data(), call.radial = radial.data();
  call.grad_distance = grad_distance.data();
  call.grad_frequency = parts.data();
  for (int64_t chunk = 0; chunk < chunks; ++chunk) spherenet::radial_basis(call, pass, chunk);

  Result<T> out;
  if (values) out.values = {bessel, radial};
  if (!vjp) return out;
  std::vector<T> grad_frequency(K, 0);
  for (int64_t i = 0; i < chunks * K; ++i) grad_frequency[i % K] += parts[i];
  out.grads = {grad_distance, grad_frequency};
  return out;
}

void check_radial_basis(int64_t num_edges, int L, int64_t K) {
  context = std::string(cpu_instruction_set()) + ", radial_basis, " + std::to_string(num_edges) + " edges";
  Random random(4);
  Arrays<double> inputs = {random.numbers<double>(num_edges), {}};
  for (double& distance : inputs[0]) distance = 3.2 + 2.5 * distance;  // 0.7 to 5.7, beyond the cutoff of 5
  for (int64_t n = 0; n < K; ++n) inputs[1].push_back(3.1 * double(n + 1));
  Arrays<double> constants = {random.numbers<double>(L * K, 10), random.numbers<double>(L * K, 5)};
  for (double& root : constants[0]) root += 12;
  const auto kernel = [&](Pass pass, const auto& in, const auto& cotangents, const auto& tangents) {
    return radial_basis(L, constants, pass, in, cotangents, tangents);
  };
  check_passes(kernel, inputs, random);
}

void check_radial_bases() {
  for (int64_t num_edges : {0, 1, 5, 513}) check_radial_basis(num_edges, 8, 3);
  check_radial_basis(3, 1, 16);
}

const Registered kRegistered("radial_basis", check_radial_bases);

#else

template <class T>
void radial_basis(int64_t num_edges, int L, int K) {
  Random random(4);
  const int64_t chunks = (num_edges + kRadialBasisChunk - 1) / kRadialBasisChunk;
  std::vector<T> distance = random.numbers<T>(num_edges), frequency = random.numbers<T>(K, 10);
  for (T& d : distance) d = T(3.2) + T(2.5) * d;  // 0.7 to 5.7, beyond the cutoff of 5
  std::vector<double> roots = random.numbers<double>(L * K, 10), scale = random.numbers<double>(L * K);
  for (double& root : roots) root += 12;
  const auto grad_bessel = random.numbers<T>(num_edges * K), grad_radial = random.numbers<T>(num_edges * L * K);
  const auto distance_tangent = random.numbers<T>(num_edges), frequency_tangent = random.numbers<T>(K);
  for (const Pass pass : {Pass::kForward, Pass::kBackward, Pass::kDoubleBackward}) {
    const bool value = pass != Pass::kBackward, vjp = pass != Pass::kForward, dual = value && vjp;
    auto bessel = unwritten<T>(value ? num_edges * K : 0), radial = unwritten<T>(value ? num_edges * L * K : 0);
    auto grad_distance = unwritten<T>(vjp ? num_edges : 0), parts = unwritten<T>(vjp ? chunks * K : 0);
    cuda::radial_basis<T>({num_edges, L, K, 5, 5.0, distance.data(), frequency.data(), roots.data(), scale.data(),
                           vjp ? grad_bessel.data() : nullptr, vjp ? grad_radial.data() : nullptr,
                           dual ? distance_tangent.data() : nullptr, dual ? frequency_tangent.data() : nullptr,
                           bessel.data(), radial.data(), grad_distance.data(), parts.data()},
                          pass, nullptr);
    auto sums = unwritten<T>(vjp ? K : 0);
    if (vjp) cuda::sum_chunks<T>({chunks, parts.data(), {K}, {sums.data()}}, nullptr);
    for (const auto& out : {bessel, radial, grad_distance, parts, sums}) check_written("radial_basis", out);
  }
}

void radial_bases(const System& system) {
  radial_basis<float>(system.num_edges(), 7, 6);
  radial_basis<double>(system.num_edges(), 3, 16);
}

const Registered kRegistered("radial_basis", radial_bases);

#endif

}  // namespace
}  // namespace spherenet::test
