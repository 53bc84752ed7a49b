// The launcher of the gated sum: inputs and their tangents are two dicts under the fields' names.
#include "../../csrc/math/gated_sum.h"
#include "arrays.h"

namespace spherenet::test {

namespace {

template <class T>
GatedSumInputs<T> inputs_of(const py::dict& a) {
  return {at<const T>(a, "x"),
          at<const T>(a, "radial"),
          at<const T>(a, "direction"),
          at<const T>(a, "angle_weight"),
          at<const T>(a, "angle_expand"),
          at<const T>(a, "torsion_weight"),
          at<const T>(a, "torsion_expand"),
          at<const T>(a, "point")};
}

void gated_sum(const py::kwargs& a) {
  dispatch(a, "grad_out", [&](auto zero) {
    using T = decltype(zero);
    GatedSumCall<T> call{};
    call.graph = graph_of(a);
    call.shape = {number<int>(a, "channels"),          number<int>(a, "num_spherical"), number<int>(a, "num_radial"),
                  number<int>(a, "angle_size"),        number<int>(a, "torsion_size"),  number<bool>(a, "dig"),
                  number<bool>(a, "angle_at_receiver")};
    call.num_triplets = number<int64_t>(a, "num_triplets");
    call.reference = at<const int32_t>(a, "reference");
    call.inputs = inputs_of<T>(number<py::dict>(a, "inputs"));
    call.tangents = inputs_of<T>(number<py::dict>(a, "tangents"));
    call.grad_out = at<const T>(a, "grad_out");
    call.out = at<T>(a, "out");
    call.grads = {at<T>(a, "grad_x"),        at<T>(a, "grad_radial"), at<T>(a, "direction_in"),
                  at<T>(a, "direction_out"), at<T>(a, "weights"),     at<T>(a, "grad_point")};
    cuda::gated_sum(call, number<int64_t>(a, "num_edges"), pass_of(a), number<bool>(a, "allow_tf32"), nullptr);
  });
}

}  // namespace

void bind_gated_sum(py::module_& m) {
  m.def("gated_sum", &gated_sum);
  m.attr("gated_sum_chunks") = cuda::kGatedSumChunks;
}

}  // namespace spherenet::test
