// Neighbors in a batch of open molecules, in two steps: between them the number of edges becomes known, or, where the
// arrays have a fixed capacity, is never asked for.
#include "../math/neighbors.h"

#include "checks.h"
#include "stream.h"

namespace spherenet::ops {
namespace {

struct NeighborTensors {
  Tensor pos;
  OptionalTensor batch;
  Checks check;
  ScalarType dtype;
  int64_t N;
  double cutoff;

  NeighborTensors(const Tensor& pos_, const OptionalTensor& batch_, double cutoff_)
      : pos(dense(pos_)), batch(dense(batch_)), check("pos", pos), dtype(floating_dtype("pos", pos)), cutoff(cutoff_) {
    check("pos", pos, dtype, {-1, 3});
    N = pos.size(0);
    if (batch) check("batch", *batch, ScalarType::Long, {N});
    STD_TORCH_CHECK(cutoff > 0 && cutoff < 1e300, "cutoff: expected a positive finite number, got ", cutoff);
  }

  Tensor empty_index(std::vector<int64_t> shape) const { return empty(pos, std::move(shape), ScalarType::Long); }

  template <class T>
  NeighborCall<T> call() const {
    NeighborCall<T> out{};
    out.num_atoms = N;
    out.pos = data<T>(pos);
    out.batch = data<int64_t>(batch);
    out.cutoff = cutoff;
    return out;
  }
};

std::tuple<Tensor, Tensor, Tensor> neighbor_pointers(Tensor pos, OptionalTensor batch, double cutoff,
                                                     int64_t edge_capacity, int64_t triplet_capacity) {
  const NeighborTensors in(pos, batch, cutoff);
  Tensor in_ptr = in.empty_index({in.N + 1}), triplet_ptr = in.empty_index({in.N + 1}), status = in.empty_index({3});
  const Tensor degree = empty(in.pos, {in.N}, ScalarType::Int);
  dispatch(in.dtype, [&](auto zero) {
    using T = decltype(zero);
    auto call = in.call<T>();
    call.in_ptr = mutable_data<int64_t>(in_ptr);
    call.edge_capacity = edge_capacity;
    call.triplet_capacity = triplet_capacity;
    call.degree = mutable_data<int32_t>(degree);
    call.triplet_ptr = mutable_data<int64_t>(triplet_ptr);
    call.status = mutable_data<int64_t>(status);
    run_where(
        in.pos,
        [&] {
          torch::stable::parallel_for(
              0, in.N, 64, [&](int64_t begin, int64_t end) { spherenet::count_neighbors(call, begin, end); });
          spherenet::neighbor_pointers(call);
        },
        [&](auto stream) { cuda::count_neighbors(call, stream); });
  });
  return {in_ptr, triplet_ptr, status};
}

std::tuple<Tensor, Tensor, Tensor> neighbor_edges(Tensor pos, OptionalTensor batch, Tensor in_ptr_, double cutoff,
                                                  int64_t num_edges) {
  const NeighborTensors in(pos, batch, cutoff);
  Tensor in_ptr = dense(in_ptr_);
  in.check("in_ptr", in_ptr, ScalarType::Long, {in.N + 1});
  STD_TORCH_CHECK(num_edges >= 0, "num_edges: expected at least 0, got ", num_edges);
  if (in.check.read_values()) check_pointers("in_ptr", IndexValues<>(in_ptr), num_edges);
  Tensor edge_index = in.empty_index({2, num_edges}), out_edge = in.empty_index({num_edges});
  Tensor rev = in.empty_index({num_edges});
  dispatch(in.dtype, [&](auto zero) {
    using T = decltype(zero);
    auto call = in.call<T>();
    call.in_ptr = const_cast<int64_t*>(data<int64_t>(in_ptr));  // which this step only reads
    call.num_edges = num_edges;
    call.edge_index = mutable_data<int64_t>(edge_index);
    call.out_edge = mutable_data<int64_t>(out_edge);
    call.rev = mutable_data<int64_t>(rev);
    run_where(
        in.pos,
        [&] {
          torch::stable::parallel_for(0, in.N, 64,
                                      [&](int64_t begin, int64_t end) { spherenet::find_neighbors(call, begin, end); });
          torch::stable::parallel_for(
              0, num_edges, 4096, [&](int64_t begin, int64_t end) { spherenet::mirror_neighbors(call, begin, end); });
        },
        [&](auto stream) { cuda::find_neighbors(call, stream); });
  });
  return {edge_index, out_edge, rev};
}

void implement(torch::stable::detail::StableLibrary& m) {
  m.impl("neighbor_pointers", TORCH_BOX(&neighbor_pointers));
  m.impl("neighbor_edges", TORCH_BOX(&neighbor_edges));
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(spherenet_fast, m) {
  m.def(
      "neighbor_pointers(Tensor pos, Tensor? batch, float cutoff, SymInt edge_capacity, SymInt triplet_capacity) -> "
      "(Tensor in_ptr, Tensor triplet_ptr, Tensor status)");
  m.def(
      "neighbor_edges(Tensor pos, Tensor? batch, Tensor in_ptr, float cutoff, SymInt num_edges) -> "
      "(Tensor edge_index, Tensor out_edge, Tensor rev)");
}
SN_IMPLEMENT(implement)

}  // namespace spherenet::ops
