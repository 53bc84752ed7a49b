// Tries the kernel of the gradient of a linear layer's weight, in float and double.
#include "../../csrc/math/outer_sum.h"

#include "passes.h"

namespace spherenet::test {
namespace {

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

void check_outer_sums() {
  for (int64_t rows : {0, 1, 700})
    for (const auto& [N, K] : {std::pair<int64_t, int64_t>{1, 1}, {17, 6}, {9, 50}, {16, 128}}) {
      check_outer_sum<float>(rows, N, K);
      check_outer_sum<double>(rows, N, K);
    }
}

const Registered kRegistered("outer_sum", check_outer_sums);

}  // namespace
}  // namespace spherenet::test
