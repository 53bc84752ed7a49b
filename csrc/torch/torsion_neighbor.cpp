// torsion_neighbor: the neighbor that each triplet's torsion is measured to. No derivative.
#include "../math/torsion_neighbor.h"

#include "graph_tensors.h"
#include "stream.h"

namespace spherenet::ops {
namespace {

Tensor torsion_neighbor(const Tensor& vec_, const GraphTensors& graph_, int64_t num_triplets) {
  const Tensor vec = dense(vec_);
  const ScalarType dtype = floating_dtype("vec", vec);
  const Checks check("vec", vec);
  check("vec", vec, dtype, {-1, 3});
  const GraphTensors tensors = dense_fields(graph_);
  const CheckedGraph graph(check, tensors, vec.size(0));
  graph.check_num_triplets("num_triplets", num_triplets);
  Tensor neighbor = empty(vec, {num_triplets}, ScalarType::Int);
  dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    const T* from = data<T>(vec);
    int32_t* to = mutable_data<int32_t>(neighbor);
    run_where(
        vec,
        [&] {
          torch::stable::parallel_for(0, graph.tiles.num_nodes, 8, [&](int64_t begin, int64_t end) {
            spherenet::torsion_neighbor(graph.tiles, from, to, begin, end);
          });
        },
        [&](auto stream) { cuda::torsion_neighbor(graph.tiles, from, to, stream); });
  });
  return neighbor;
}

void implement(torch::stable::detail::StableLibrary& m) { m.impl("torsion_neighbor", SN_BOX(torsion_neighbor)); }

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(spherenet_fast, m) {
  m.def("torsion_neighbor(Tensor vec, " SN_GRAPH_SCHEMA ", SymInt num_triplets) -> Tensor");
}
SN_IMPLEMENT(implement)

}  // namespace spherenet::ops
