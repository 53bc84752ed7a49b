// Runs the kernels of the smaller operators: all passes, float and double.
#include "../../csrc/math/radial_basis.h"
#include "../../csrc/math/radial_filter.h"
#include "../../csrc/math/segment_sum.h"
#include "../../csrc/math/silu.h"
#include "../../csrc/math/torsion_reference.h"
#include "run.h"

namespace spherenet::test {
namespace {

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

template <class T>
void torsion_reference(const System& system) {
  const std::vector<T> vec(system.vec.begin(), system.vec.end());
  std::vector<int32_t> reference(system.num_triplets(), -9);
  cuda::torsion_reference(system.graph(), vec.data(), reference.data(), nullptr);
  for (int64_t j = 0; j < system.num_nodes(); ++j)
    for (int64_t k = system.triplet_ptr[j]; k < system.triplet_ptr[j + 1]; ++k)
      if (reference[k] < kVanishing || reference[k] >= system.in_ptr[j + 1] - system.in_ptr[j]) {
        ++failures;
        std::fprintf(stderr, "torsion_reference: %d is out of range\n", reference[k]);
      }
}

void torsion_references(const System& system) {
  torsion_reference<float>(system);
  torsion_reference<double>(system);
}

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

template <class T>
void silu(const System& system) {
  Random random(5);
  const int64_t size = system.num_edges() + 1030;  // more than a block of float
  const auto x = random.numbers<T>(size, 12), grad = random.numbers<T>(size), tangent = random.numbers<T>(size);
  for (const Pass pass : {Pass::kForward, Pass::kBackward, Pass::kDoubleBackward}) {
    const bool vjp = pass != Pass::kForward;
    auto y = unwritten<T>(pass != Pass::kBackward ? size : 0), grad_x = unwritten<T>(vjp ? size : 0);
    cuda::silu<T>({x.data(), vjp ? grad.data() : nullptr, pass == Pass::kDoubleBackward ? tangent.data() : nullptr,
                   y.data(), grad_x.data()},
                  pass, size, nullptr);
    check_written("silu", y);
    check_written("silu", grad_x);
  }
}

void silus(const System& system) {
  silu<float>(system);
  silu<double>(system);
}

template <class T>
void sums(const System& system, int64_t channels) {
  Random random(6);
  const auto x = random.numbers<T>(system.num_edges() * channels);
  auto by_receiver = unwritten<T>(system.num_nodes() * channels), by_sender = by_receiver;
  cuda::segment_sum<T>(x.data(), system.in_ptr.data(), nullptr, system.num_nodes(), channels, by_receiver.data(),
                       nullptr);
  cuda::segment_sum<T>(x.data(), system.out_ptr.data(), system.out_edge.data(), system.num_nodes(), channels,
                       by_sender.data(), nullptr);
  check_written("segment_sum", by_receiver);
  check_written("segment_sum", by_sender);
  std::vector<int64_t> receiver(system.num_edges(), -1);
  for (int64_t j = 0; j < system.num_nodes(); ++j)
    for (int64_t e = system.in_ptr[j]; e < system.in_ptr[j + 1]; ++e) receiver[e] = j;
  auto rows = unwritten<T>(system.num_edges() * channels);
  cuda::gather<T>(by_receiver.data(), receiver.data(), system.num_edges(), channels, rows.data(), nullptr);
  check_written("gather", rows);
}

void all_sums(const System& system) {
  for (const int64_t channels : {1, 7, 64}) {
    sums<float>(system, channels);
    sums<double>(system, channels);
  }
}

const Registered kRegistered[] = {{"radial_basis", radial_bases},
                                  {"torsion_reference", torsion_references},
                                  {"radial_filter", radial_filters},
                                  {"silu", silus},
                                  {"sums", all_sums}};

}  // namespace
}  // namespace spherenet::test
