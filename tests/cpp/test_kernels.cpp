// The CPU kernels without torch: all passes, float and double, every instruction set that the processor has.
//
// Outputs start as NaN, so a number that is not written shows; inputs and outputs have their exact size, so that
// AddressSanitizer sees a step beyond. In double, derivatives are compared with central differences.
// Prints what it ran; returns 0 if all is well. Built by tests/math/test_sanitizers.py; any C++17 compiler will do:
//   c++ -std=c++17 -O2 tests/cpp/test_kernels.cpp csrc/cpu/*.cpp -o test_kernels && ./test_kernels
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>

#include "../../csrc/math/gated_sum.h"
#include "../../csrc/math/outer_sum.h"
#include "../../csrc/math/radial_basis.h"
#include "../../csrc/math/radial_filter.h"
#include "../../csrc/math/segment_sum.h"
#include "../../csrc/math/silu.h"
#include "../../csrc/math/torsion_reference.h"
#include "passes.h"
#include "row_chain.h"

using namespace spherenet;
using namespace spherenet::test;

namespace {

// ---- gated_sum -----------------------------------------------------------------------------------------------------

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
Result<T> gated_sum(const System& system, const GatedSumShape& shape, const std::vector<int32_t>& reference, Pass pass,
                    const Arrays<T>& inputs, const Arrays<T>& cotangents, const Arrays<T>& tangents,
                    Groups asked = {}) {
  const int64_t chunks = gated_sum_chunks(system.graph()).count, num_edges = system.num_edges();
  const bool vjp = pass != Pass::kForward, geometry = vjp && asked.geometry && shape.angle_size;
  Result<T> out;
  auto values = unwritten<T>(pass == Pass::kBackward ? 0 : num_edges * shape.channels);
  auto grad_x = unwritten<T>(vjp ? num_edges * shape.channels : 0);
  auto grad_radial = unwritten<T>(geometry ? int64_t(inputs[1].size()) : 0);
  auto inward = unwritten<T>(geometry ? 3 * num_edges : 0), outward = inward;
  auto weights = unwritten<T>(vjp && asked.weights ? chunks * shape.weights() : 0);

  GatedSumCall<T> call{};
  call.graph = system.graph();
  call.shape = shape;
  call.reference = shape.torsion_size ? reference.data() : nullptr;
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
  for (int64_t size : {shape.angle_weight(), shape.angle_expand(), shape.torsion_weight(), shape.torsion_expand()}) {
    std::vector<T> sum(size, 0);
    for (int64_t chunk = 0; chunk < chunks; ++chunk)
      for (int64_t i = 0; i < size; ++i) sum[i] += from[chunk * shape.weights() + i];
    out.grads.push_back(sum);
    from += size;
  }
  return out;
}

template <class T>
std::vector<int32_t> references(const System& system) {
  std::vector<int32_t> found(system.num_triplets(), -9);
  const std::vector<T> vec(system.vec.begin(), system.vec.end());
  torsion_reference(system.graph(), vec.data(), found.data(), 0, system.num_nodes());
  return found;
}

std::vector<int32_t> check_torsion_reference(const System& system) {
  const auto found = references<double>(system);
  check(found == references<float>(system), "torsion references depend on the precision");
  for (int64_t j = 0; j < system.num_nodes(); ++j)
    for (int64_t k = system.triplet_ptr[j]; k < system.triplet_ptr[j + 1]; ++k)
      check(found[k] >= kVanishing && found[k] < system.in_ptr[j + 1] - system.in_ptr[j],
            "a torsion reference is out of range");
  return found;
}

void check_gated_sum(const System& system, const GatedSumShape& shape, const std::vector<int32_t>& reference) {
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
      random.numbers<double>(shape.angle_weight(), 0.3),
      random.numbers<double>(shape.angle_expand(), 0.3),
      random.numbers<double>(shape.torsion_weight(), 0.1),
      random.numbers<double>(shape.torsion_expand(), 0.3),
  };
  const auto kernel = [&](auto zero) {
    using A = Arrays<decltype(zero)>;
    return [&](Pass pass, const A& in, const A& cotangents, const A& tangents) {
      return gated_sum(system, shape, reference, pass, in, cotangents, tangents);
    };
  };
  check_passes(kernel(double{}), kernel(float{}), inputs, random);

  // What is asked for does not depend on what else is.
  const Arrays<double> cotangents = {random.numbers<double>(num_edges * shape.channels)};
  const Arrays<double> tangents = like(inputs, random);
  for (const Pass pass : {Pass::kBackward, Pass::kDoubleBackward}) {
    const auto& along = pass == Pass::kBackward ? Arrays<double>{} : tangents;
    const auto run = [&](Groups asked) {
      return gated_sum(system, shape, reference, pass, inputs, cotangents, along, asked);
    };
    const auto all = run({}), only_x = run({false, false}), no_weights = run({true, false}),
               weights = run({false, true});
    check(only_x.values == all.values && only_x.grads[0] == all.grads[0], "gradient of x alone");
    for (size_t k = 0; k < no_weights.grads.size(); ++k)
      check(no_weights.grads[k] == all.grads[k], "gradients without those of the weights");
    for (size_t k = 3; k < all.grads.size(); ++k)
      check(weights.grads[k] == all.grads[k], "gradients of the weights without those of the geometry");
  }
}

// ---- radial_basis, silu, radial_filter, sums
// --------------------------------------------------------------------------

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
  const auto kernel = [&](auto zero) {
    using A = Arrays<decltype(zero)>;
    return [&](Pass pass, const A& in, const A& cotangents, const A& tangents) {
      return radial_basis(L, constants, pass, in, cotangents, tangents);
    };
  };
  check_passes(kernel(double{}), kernel(float{}), inputs, random);
}

template <class T>
Result<T> silu(Pass pass, const Arrays<T>& inputs, const Arrays<T>& cotangents, const Arrays<T>& tangents) {
  const int64_t size = int64_t(inputs[0].size());
  auto y = unwritten<T>(pass == Pass::kBackward ? 0 : size), grad_x = unwritten<T>(pass == Pass::kForward ? 0 : size);
  const SiluCall<T> call{inputs[0].data(), pass == Pass::kForward ? nullptr : cotangents[0].data(),
                         pass == Pass::kDoubleBackward ? tangents[0].data() : nullptr, y.data(), grad_x.data()};
  const int64_t middle = size / 3;
  spherenet::silu(call, pass, middle, size);
  spherenet::silu(call, pass, 0, middle);
  Result<T> out;
  if (pass != Pass::kBackward) out.values = {y};
  if (pass != Pass::kForward) out.grads = {grad_x};
  return out;
}

void check_silu(int64_t size) {
  context = std::string(cpu_instruction_set()) + ", silu, " + std::to_string(size) + " numbers";
  Random random(5);
  check_passes(silu<double>, silu<float>, {random.numbers<double>(size, 12)}, random);
}

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
  const auto kernel = [&](auto zero) {
    using A = Arrays<decltype(zero)>;
    return [&](Pass pass, const A& in, const A& cotangents, const A& tangents) {
      return radial_filter(num_edges, pass, in, cotangents, tangents);
    };
  };
  check_passes(kernel(double{}), kernel(float{}), inputs, random);
}

template <class T>
void check_outer_sum(int64_t rows, int64_t N, int64_t K) {
  context = std::string(cpu_instruction_set()) + ", outer_sum, " + std::to_string(rows) + " rows";
  Random random(8);
  const auto a = random.numbers<T>(rows * N), b = random.numbers<T>(rows * K);
  auto found = unwritten<T>(N * K);
  const OuterSumCall<T> call{rows, N, K, a.data(), b.data(), found.data(), false};
  const int64_t middle = N / 2;
  outer_sum(call, middle, N);
  outer_sum(call, 0, middle);
  std::vector<double> expected(N * K, 0);
  for (int64_t m = 0; m < rows; ++m)
    for (int64_t n = 0; n < N; ++n)
      for (int64_t k = 0; k < K; ++k) expected[n * K + k] += double(a[m * N + n]) * double(b[m * K + k]);
  check_close(found, expected, 1e-5, "outer_sum");  // sums of 700 products rounded to 6e-8
}

template <class T>
void check_segment_sum(const System& system, int64_t channels) {
  Random random(6);
  const auto x = random.numbers<T>(system.num_edges() * channels);
  for (const auto* index : {static_cast<const std::vector<int64_t>*>(nullptr), &system.out_edge}) {
    const auto& ptr = index ? system.out_ptr : system.in_ptr;
    auto found = unwritten<T>(system.num_nodes() * channels);
    segment_sum(x.data(), ptr.data(), index ? index->data() : nullptr, channels, found.data(), 0, system.num_nodes());
    std::vector<T> expected(found.size(), 0);
    for (int64_t n = 0; n < system.num_nodes(); ++n)
      for (int64_t k = ptr[n]; k < ptr[n + 1]; ++k)
        for (int64_t c = 0; c < channels; ++c)
          expected[n * channels + c] += x[(index ? (*index)[k] : k) * channels + c];
    check_close(found, expected, 1e-6, "segment_sum");
  }
}

void check_everything() {
  // channels C, L, K, P, Q, dig, angle at the receiver
  const GatedSumShape shapes[] = {
      {64, 7, 6, 8, 8, false, false}, {20, 3, 4, 9, 3, true, false}, {70, 2, 16, 1, 17, false, false},
      {1, 1, 1, 1, 1, false, false},  {5, 8, 1, 3, 8, true, false},  {12, 4, 2, 8, 0, false, true},
      {9, 0, 0, 0, 0, false, false},
  };
  for (const System& system : systems()) {
    context = std::string(cpu_instruction_set()) + ", " + system.name;
    const auto reference = check_torsion_reference(system);
    for (const GatedSumShape& shape : shapes) {
      context = std::string(cpu_instruction_set()) + ", " + system.name + ", " + std::to_string(shape.channels) +
                " channels, L = " + std::to_string(shape.num_spherical);
      check_gated_sum(system, shape, reference);
    }
    for (int64_t channels : {1, 7, 64}) {
      check_segment_sum<float>(system, channels);
      check_segment_sum<double>(system, channels);
    }
  }
  for (int64_t num_edges : {0, 1, 5, 513}) check_radial_basis(num_edges, 8, 3);
  check_radial_basis(3, 1, 16);
  for (int64_t size : {0, 1, 13, 100}) check_silu(size);
  check_radial_filter(1, 1, 1);
  check_radial_filter(131, 37, 6);
  check_radial_filter(4, 64, 16);
  for (int64_t rows : {1, 24, 131}) check_row_chain(rows);
  for (int64_t rows : {0, 1, 700})
    for (const auto& [N, K] : {std::pair<int64_t, int64_t>{1, 1}, {17, 6}, {9, 50}, {16, 128}}) {
      check_outer_sum<float>(rows, N, K);
      check_outer_sum<double>(rows, N, K);
    }
}

}  // namespace

int main() {
  for (const char* name : {"baseline", "avx2", "avx512"}) {
    setenv("SPHERENET_FAST_CPU", name, 1);
    if (std::strcmp(cpu_instruction_set(), name)) {
      std::printf("%s: not on this processor\n", name);
      continue;
    }
    const int before = failures;
    check_everything();
    std::printf("%s: %s\n", name, failures == before ? "passed" : "failed");
  }
  return failures != 0;
}
