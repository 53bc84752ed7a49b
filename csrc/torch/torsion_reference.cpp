// torsion_reference: the neighbour that each triplet's torsion is measured to. No derivative.
#include "checks.h"

namespace spherenet::ops {
namespace {

Tensor torsion_reference(Tensor vec_, Tensor in_ptr, Tensor out_ptr, Tensor out_edge, Tensor rev, Tensor pair_ptr,
                         int64_t num_pairs) {
  const Tensor vec = contiguous(vec_);
  const ScalarType dtype = floating_dtype("vec", vec);
  check("vec", vec, dtype, {-1, 3});
  const GraphTensors tensors{in_ptr, out_ptr, out_edge, rev, pair_ptr};
  int64_t pairs = 0;
  const TileGraph graph = tensors.checked(vec.size(0), &pairs);
  STD_TORCH_CHECK(num_pairs == pairs, "num_pairs: expected ", pairs, ", the end of pair_ptr, got ", num_pairs);
  Tensor reference = torch::stable::new_empty(vec, {pairs}, ScalarType::Int);
  dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    torch::stable::parallel_for(0, graph.num_nodes, 8, [&](int64_t begin, int64_t end) {
      spherenet::torsion_reference(graph, data<T>(vec), mutable_data<int32_t>(reference), begin, end);
    });
  });
  return reference;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(spherenet_fast, m) {
  m.def(
      "torsion_reference(Tensor vec, Tensor in_ptr, Tensor out_ptr, Tensor out_edge, Tensor rev, Tensor pair_ptr, "
      "SymInt num_pairs) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(spherenet_fast, CPU, m) { m.impl("torsion_reference", TORCH_BOX(&torsion_reference)); }

}  // namespace spherenet::ops
