// Tries the kernels of sums of rows over segments, and of their transpose, in float and double.
// Built with SPHERENET_FAST_CUDA_ON_CPU it runs the CUDA kernels, else those for the CPU.
#include "../../csrc/math/segment_sum.h"

#include "passes.h"

namespace spherenet::test {
namespace {

#ifndef SPHERENET_FAST_CUDA_ON_CPU

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

void check_segment_sums(const System& system) {
  for (int64_t channels : {1, 7, 64}) {
    check_segment_sum<float>(system, channels);
    check_segment_sum<double>(system, channels);
  }
}

const Registered kRegistered("segment_sum", check_segment_sums);

#else

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

const Registered kRegistered("segment_sum", all_sums);

#endif

}  // namespace
}  // namespace spherenet::test
