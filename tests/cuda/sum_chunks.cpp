// Sums over chunks of work, which the operators make within, as an operator of the test's library.
#include "../../csrc/torch/checks.h"
#include "../../csrc/torch/stream.h"

namespace spherenet::ops {
namespace {

std::tuple<Tensor, Tensor, Tensor, Tensor> sums_of_columns(Tensor parts, int64_t a, int64_t b, int64_t c, int64_t d) {
  const std::tuple<Tensor, Tensor, Tensor, Tensor> out{empty(parts, {a}), empty(parts, {b}), empty(parts, {c}),
                                                       empty(parts, {d})};
  const auto& [first, second, third, fourth] = out;
  const std::vector<Tensor> sums{first, second, third, fourth};
  dispatch(floating_dtype("parts", parts), [&](auto zero) { sum_chunks<decltype(zero)>(parts, sums); });
  return out;
}

void implement(torch::stable::detail::StableLibrary& m) { m.impl("sum_chunks", TORCH_BOX(&sums_of_columns)); }

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(spherenet_fast, m) {
  m.def("sum_chunks(Tensor parts, int a, int b, int c, int d) -> (Tensor, Tensor, Tensor, Tensor)");
}
SN_IMPLEMENT(implement)

}  // namespace spherenet::ops
