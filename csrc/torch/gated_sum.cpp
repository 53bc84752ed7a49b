// gated_sum: the sum over triplets of one interaction block. Derivatives are registered in Python.
#include "../math/gated_sum.h"

#include <algorithm>

#include "graph_tensors.h"
#include "stream.h"

namespace spherenet::ops {
namespace {

// Tensors that belong to the differentiable inputs: the inputs themselves, a tangent or a gradient of each. Other is
// the type of those that may be absent.
template <class X, class Other>
struct GatedSumTensors {
  X x;
  Other radial, direction, torsion, angle_weight, angle_expand, torsion_weight, torsion_expand;

  template <class F>
  void fields(const F& f) {
    f(x, radial, direction, torsion, angle_weight, angle_expand, torsion_weight, torsion_expand);
  }

  template <class T>
  GatedSumInputs<T> pointers() const {
    return {data<T>(x),
            data<T>(radial),
            data<T>(direction),
            data<T>(angle_weight),
            data<T>(angle_expand),
            data<T>(torsion_weight),
            data<T>(torsion_expand),
            data<T>(torsion)};
  }
};
using Inputs = GatedSumTensors<Tensor, OptionalTensor>;
using Tangents = GatedSumTensors<OptionalTensor, OptionalTensor>;
using Gradients = GatedSumTensors<Tensor, Tensor>;
#define SN_GATED_SUM_TENSORS(x_type, type, prefix)                                                                  \
  x_type " " prefix "x, " type " " prefix "radial, " type " " prefix "direction, " type " " prefix "torsion, " type \
         " " prefix "angle_weight, " type " " prefix "angle_expand, " type " " prefix "torsion_weight, " type       \
         " " prefix "torsion_expand"

struct GatedSumArguments {
  Inputs inputs;
  OptionalTensor measured_to;
  GraphTensors graph;
  bool dig, angle_at_receiver;
  bool tf32;  // whether a GPU may round the factors of float32 products

  template <class F>
  void fields(const F& f) {
    f(inputs, measured_to, graph, dig, angle_at_receiver, tf32);
  }
};
#define SN_GATED_SUM_SCHEMA                     \
  SN_GATED_SUM_TENSORS("Tensor", "Tensor?", "") \
  ", Tensor? measured_to, " SN_GRAPH_SCHEMA ", bool dig, bool angle_at_receiver, bool tf32"

struct CheckedGatedSum {
  Inputs inputs;
  OptionalTensor measured_to;
  GraphTensors tensors;
  bool tf32;
  Checks check;
  ScalarType dtype;
  int64_t num_edges;  // rows over edges
  CheckedGraph graph;
  GatedSumShape shape;

  explicit CheckedGatedSum(const GatedSumArguments& given)
      : inputs(dense_fields(given.inputs)),
        measured_to(dense(given.measured_to)),
        tensors(dense_fields(given.graph)),
        tf32(given.tf32),
        check("x", inputs.x),
        dtype(floating_dtype("x", inputs.x)),
        num_edges(checked_rows()),
        graph(check, tensors, num_edges) {
    shape = {int(inputs.x.size(1)), 0, 0, 0, 0, given.dig, given.angle_at_receiver};
    const bool angle = inputs.angle_weight.has_value(), torsion = inputs.torsion_weight.has_value();
    STD_TORCH_CHECK(angle == inputs.angle_expand.has_value(),
                    "angle_expand: expected both or neither of angle_weight and angle_expand, got one");
    STD_TORCH_CHECK(torsion == inputs.torsion_expand.has_value(),
                    "torsion_expand: expected both or neither of torsion_weight and torsion_expand, got one");
    STD_TORCH_CHECK(angle || !torsion, "angle_weight: expected one beside torsion_weight, got none");
    STD_TORCH_CHECK(torsion || !inputs.torsion, "torsion: expected none without torsion_weight, got one");
    STD_TORCH_CHECK(!torsion || !given.angle_at_receiver,
                    "torsion_weight: expected none beside angles at the receiver, got one");
    if (angle) check_angle();
    if (torsion) check_torsion();
  }

  template <class T>
  GatedSumCall<T> call() const {
    GatedSumCall<T> out{};
    out.graph = graph.tiles;
    out.shape = shape;
    out.num_triplets = inputs.torsion ? inputs.torsion->size(1) : 0;
    out.measured_to = shape.torsion_size ? data<int32_t>(measured_to) : nullptr;
    out.inputs = inputs.pointers<T>();
    return out;
  }

 private:
  int64_t checked_rows() const {
    check("x", inputs.x, dtype, {-1, -1});
    return inputs.x.size(0);
  }

  void check_angle() {
    STD_TORCH_CHECK(inputs.radial && inputs.direction,
                    "radial, direction: expected both beside angle_weight, got one or none");
    check("radial", *inputs.radial, dtype, {num_edges, -1, -1});
    const int64_t L = inputs.radial->size(1), K = inputs.radial->size(2);
    STD_TORCH_CHECK(L >= 1 && L <= 8, "radial: expected 1 .. 8 orders, got ", L);
    STD_TORCH_CHECK(K >= 1 && K <= kMaxRadial, "radial: expected 1 .. ", kMaxRadial, " functions, got ", K);
    check("direction", *inputs.direction, dtype, {num_edges, 3});
    check("angle_weight", *inputs.angle_weight, dtype, {-1, L * K});
    check("angle_expand", *inputs.angle_expand, dtype, {shape.channels, inputs.angle_weight->size(0)});
    shape.num_spherical = int(L);
    shape.num_radial = int(K);
    shape.angle_size = int(inputs.angle_weight->size(0));
    STD_TORCH_CHECK(shape.angle_size > 0, "angle_weight: expected at least one row, got none");
  }

  void check_torsion() {
    const Tensor& weight = *inputs.torsion_weight;
    check("torsion_weight", weight, dtype, {-1, shape.harmonics() * shape.num_radial});
    check("torsion_expand", *inputs.torsion_expand, dtype, {shape.channels, weight.size(0)});
    shape.torsion_size = int(weight.size(0));
    STD_TORCH_CHECK(shape.torsion_size > 0, "torsion_weight: expected at least one row, got none");
    STD_TORCH_CHECK(measured_to.has_value() != inputs.torsion.has_value(),
                    "torsion: expected one beside torsion_weight, got ", measured_to ? "two" : "none");
    if (inputs.torsion) {
      check("torsion", *inputs.torsion, dtype, {2, -1});
      return graph.check_num_triplets("torsion", inputs.torsion->size(1));
    }
    check("torsion", *measured_to, ScalarType::Int, {-1});
    graph.check_num_triplets("torsion", measured_to->size(0));
    if (check.read_values()) check_measured_to();
  }

  void check_measured_to() const {
    const IndexValues<int32_t> code(*measured_to);
    const IndexValues<int64_t> in_ptr(tensors.in_ptr), triplet_ptr(tensors.triplet_ptr);
    for (int64_t j = 0; j < graph.tiles.num_nodes; ++j) {
      const int64_t num_in = in_ptr[j + 1] - in_ptr[j];
      bool ok = true;
      for (int64_t k = triplet_ptr[j]; k < triplet_ptr[j + 1]; ++k) ok &= code[k] >= kVanishing && code[k] < num_in;
      STD_TORCH_CHECK(ok, "torsion: expected values in -2 .. ", num_in - 1, " around atom ", j, ", got others");
    }
  }
};

// Weight gradients come in rows, and those of directions in parts, which are added up afterwards.
cuda::GatedSumBlocks backward_blocks(const CheckedGatedSum& in) {
  if (takes_cuda_kernels(in.inputs.x)) return cuda::gated_sum_blocks(in.graph.tiles.num_nodes, in.shape.weights_size());
  return {gated_sum_chunks(in.graph.tiles).count, 1};
}

// The rows past the last edge, `width` numbers each, belong to no tile.
template <class T>
void zero_padding(T* rows, const CheckedGatedSum& in, int64_t width) {
  if (rows) std::fill(rows + *in.graph.num_edges * width, rows + in.num_edges * width, T(0));
}

template <class T>
void run(const CheckedGatedSum& in, const GatedSumCall<T>& call, Pass pass) {
  run_where(
      in.inputs.x,
      [&] {
        const GatedSum<T> sum(call, pass);
        torch::stable::parallel_for(0, gated_sum_chunks(call.graph).count, 1, [&](int64_t begin, int64_t end) {
          for (int64_t chunk = begin; chunk < end; ++chunk) sum.run(chunk);
        });
        for (T* rows : {call.out, call.grads.x}) zero_padding(rows, in, in.shape.channels);
        for (T* rows : {call.grads.direction_in, call.grads.direction_out}) zero_padding(rows, in, 3);
        for (int k = 0; call.grads.torsion && k < 2; ++k)
          std::fill(call.grads.torsion + k * call.num_triplets + *in.graph.num_triplets,
                    call.grads.torsion + (k + 1) * call.num_triplets, T(0));
        zero_padding(call.grads.radial, in, int64_t(in.shape.num_spherical) * in.shape.num_radial);
      },
      [&](auto stream) { cuda::gated_sum(call, in.num_edges, pass, in.tf32, stream); });
}

Tensor gated_sum(const GatedSumArguments& given) {
  const CheckedGatedSum in(given);
  Tensor out = empty(in.inputs.x, {in.num_edges, in.shape.channels});
  dispatch(in.dtype, [&](auto zero) {
    using T = decltype(zero);
    auto call = in.call<T>();
    call.out = mutable_data<T>(out);
    run(in, call, Pass::kForward);
  });
  return out;
}

// grad_grad_out (empty unless tangents are given), and the gradients: [0] where an input is absent or its group
// (geometry: radial, direction and torsion; weights) is not asked for.
std::tuple<Tensor, Gradients> gated_sum_vjp(const CheckedGatedSum& in, const Tensor& grad_out_,
                                            const Tangents* tangents, bool geometry, bool weights) {
  const Tensor& x = in.inputs.x;
  const Tensor grad_out = dense(grad_out_);
  in.check("grad_out", grad_out, in.dtype, {in.num_edges, in.shape.channels});
  const bool with_geometry = geometry && in.shape.angle_size;
  const auto gradient = [&](const OptionalTensor& t, bool wanted) {
    if (!t || !wanted) return empty(x, {0});
    const auto sizes = t->sizes();
    return empty(x, std::vector<int64_t>(sizes.begin(), sizes.end()));
  };
  const Tensor grad_grad_out = tangents ? empty(x, {in.num_edges, in.shape.channels}) : empty(x, {0});
  const Gradients grads{gradient(x, true),
                        gradient(in.inputs.radial, with_geometry),
                        gradient(in.inputs.direction, with_geometry),
                        gradient(in.inputs.torsion, with_geometry),
                        gradient(in.inputs.angle_weight, weights),
                        gradient(in.inputs.angle_expand, weights),
                        gradient(in.inputs.torsion_weight, weights),
                        gradient(in.inputs.torsion_expand, weights)};
  dispatch(in.dtype, [&](auto zero) {
    using T = decltype(zero);
    const auto blocks = backward_blocks(in);
    const int64_t parts = blocks.parts, E3 = 3 * in.num_edges;
    const Tensor weight_rows = empty(x, {blocks.rows(), weights ? in.shape.weights_size() : 0});
    const Tensor directions = empty(x, {2 * parts, with_geometry ? E3 : 0});  // direction_in, direction_out
    auto call = in.call<T>();
    call.grad_out = data<T>(grad_out);
    call.grads.x = mutable_data<T>(grads.x);
    call.grads.weights = weights ? mutable_data<T>(weight_rows) : nullptr;
    if (with_geometry) {
      call.grads.radial = mutable_data<T>(grads.radial);
      call.grads.direction_in = mutable_data<T>(directions);
      call.grads.direction_out = call.grads.direction_in + parts * E3;
      call.grads.torsion = in.inputs.torsion ? mutable_data<T>(grads.torsion) : nullptr;
    }
    if (tangents) {
      call.tangents = tangents->template pointers<T>();
      call.out = mutable_data<T>(grad_grad_out);
    }
    run(in, call, tangents ? Pass::kDoubleBackward : Pass::kBackward);
    if (with_geometry) sum_chunks<T>(directions, {grads.direction});
    if (weights)
      sum_chunks<T>(weight_rows, {grads.angle_weight, grads.angle_expand, grads.torsion_weight, grads.torsion_expand});
  });
  return {grad_grad_out, grads};
}

Gradients gated_sum_backward(const Tensor& grad_out, const GatedSumArguments& given, bool geometry, bool weights) {
  return std::get<1>(gated_sum_vjp(CheckedGatedSum(given), grad_out, nullptr, geometry, weights));
}

std::tuple<Tensor, Gradients> gated_sum_double_backward(const Tangents& tangents_, const Tensor& grad_out,
                                                        const GatedSumArguments& given, bool geometry, bool weights) {
  const CheckedGatedSum in(given);
  const Tangents tangents = dense_fields(tangents_);
  const auto same = [&](const char* name, const OptionalTensor& tangent, const OptionalTensor& input) {
    if (!tangent) return;
    STD_TORCH_CHECK(input.has_value(), name, ": expected none where the input is absent, got a tensor");
    const auto sizes = input->sizes();
    in.check(name, *tangent, in.dtype, std::vector<int64_t>(sizes.begin(), sizes.end()));
  };
  same("grad_grad_x", tangents.x, in.inputs.x);
  same("grad_grad_radial", tangents.radial, in.inputs.radial);
  same("grad_grad_direction", tangents.direction, in.inputs.direction);
  same("grad_grad_torsion", tangents.torsion, in.inputs.torsion);
  same("grad_grad_angle_weight", tangents.angle_weight, in.inputs.angle_weight);
  same("grad_grad_angle_expand", tangents.angle_expand, in.inputs.angle_expand);
  same("grad_grad_torsion_weight", tangents.torsion_weight, in.inputs.torsion_weight);
  same("grad_grad_torsion_expand", tangents.torsion_expand, in.inputs.torsion_expand);
  return gated_sum_vjp(in, grad_out, &tangents, geometry, weights);
}

void implement(torch::stable::detail::StableLibrary& m) {
  m.impl("gated_sum", SN_BOX(gated_sum));
  m.impl("gated_sum_backward", SN_BOX(gated_sum_backward));
  m.impl("gated_sum_double_backward", SN_BOX(gated_sum_double_backward));
}

}  // namespace

#define SN_GATED_SUM_GRADIENTS SN_GATED_SUM_TENSORS("Tensor", "Tensor", "grad_")

STABLE_TORCH_LIBRARY_FRAGMENT(spherenet_fast, m) {
  m.def("gated_sum(" SN_GATED_SUM_SCHEMA ") -> Tensor");
  m.def("gated_sum_backward(Tensor grad_out, " SN_GATED_SUM_SCHEMA
        ", bool geometry, bool weights) -> (" SN_GATED_SUM_GRADIENTS ")");
  m.def("gated_sum_double_backward(" SN_GATED_SUM_TENSORS(
      "Tensor?", "Tensor?",
      "grad_grad_") ", Tensor grad_out, " SN_GATED_SUM_SCHEMA
                    ", bool geometry, bool weights) -> (Tensor grad_grad_out, " SN_GATED_SUM_GRADIENTS ")");
}
SN_IMPLEMENT(implement)

}  // namespace spherenet::ops
