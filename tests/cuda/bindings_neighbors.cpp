// The search for neighbors as Python functions of NumPy arrays; see bindings.cpp.
#include "../../csrc/math/neighbors.h"
#include "arrays.h"

namespace spherenet::test {
namespace {

template <class T>
NeighborCall<T> neighbor_call(const py::kwargs& a) {
  NeighborCall<T> call{};
  call.num_atoms = number<int64_t>(a, "num_atoms");
  call.pos = at<const T>(a, "pos");
  call.batch = at<const int64_t>(a, "batch");
  call.cutoff = number<double>(a, "cutoff");
  call.in_ptr = at<int64_t>(a, "in_ptr");
  return call;
}

void count_neighbors(const py::kwargs& a) {
  dispatch(a, "pos", [&](auto zero) {
    auto call = neighbor_call<decltype(zero)>(a);
    call.edge_capacity = number<int64_t>(a, "edge_capacity");
    call.triplet_capacity = number<int64_t>(a, "triplet_capacity");
    call.degree = at<int32_t>(a, "degree");
    call.triplet_ptr = at<int64_t>(a, "triplet_ptr");
    call.status = at<int64_t>(a, "status");
    cuda::count_neighbors(call, nullptr);
  });
}

void find_neighbors(const py::kwargs& a) {
  dispatch(a, "pos", [&](auto zero) {
    auto call = neighbor_call<decltype(zero)>(a);
    call.num_edges = number<int64_t>(a, "num_edges");
    call.edge_index = at<int64_t>(a, "edge_index");
    call.out_edge = at<int64_t>(a, "out_edge");
    call.rev = at<int64_t>(a, "rev");
    cuda::find_neighbors(call, nullptr);
  });
}

}  // namespace

void bind_neighbors(py::module_& m) {
  m.def("count_neighbors", &count_neighbors);
  m.def("find_neighbors", &find_neighbors);
}

}  // namespace spherenet::test
