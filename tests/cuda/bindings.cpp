// The launchers of csrc/cuda as Python functions of NumPy arrays: keywords are the fields of their argument structs,
// and results are written into arrays that the caller gives. Built by tests/cuda_harness.py.
#include "../../csrc/math/radial_basis.h"
#include "../../csrc/math/radial_filter.h"
#include "../../csrc/math/segment_sum.h"
#include "../../csrc/math/silu.h"
#include "../../csrc/math/smooth_torsion.h"
#include "../../csrc/math/torsion_reference.h"
#include "arrays.h"

namespace spherenet::test {

void bind_gated_sum(py::module_& m);  // bindings_gated_sum.cpp
void bind_neighbors(py::module_& m);  // bindings_neighbors.cpp

namespace {

void radial_basis(const py::kwargs& a) {
  dispatch(a, "distance", [&](auto zero) {
    using T = decltype(zero);
    RadialBasisCall<T> call{};
    call.num_edges = number<int64_t>(a, "num_edges");
    call.num_spherical = number<int>(a, "num_spherical");
    call.num_radial = number<int>(a, "num_radial");
    call.envelope_exponent = number<int>(a, "envelope_exponent");
    call.cutoff = number<double>(a, "cutoff");
    call.distance = at<const T>(a, "distance");
    call.frequency = at<const T>(a, "frequency");
    call.roots = at<const double>(a, "roots");
    call.scale = at<const double>(a, "scale");
    call.grad_bessel = at<const T>(a, "grad_bessel");
    call.grad_radial = at<const T>(a, "grad_radial");
    call.distance_tangent = at<const T>(a, "distance_tangent");
    call.frequency_tangent = at<const T>(a, "frequency_tangent");
    call.bessel = at<T>(a, "bessel");
    call.radial = at<T>(a, "radial");
    call.grad_distance = at<T>(a, "grad_distance");
    call.grad_frequency = at<T>(a, "grad_frequency");
    cuda::radial_basis(call, pass_of(a), nullptr);
  });
}

void torsion_reference(const py::kwargs& a) {
  dispatch(a, "vec", [&](auto zero) {
    using T = decltype(zero);
    cuda::torsion_reference(graph_of(a), at<const T>(a, "vec"), at<int32_t>(a, "reference"), nullptr);
  });
}

void smooth_torsion(const py::kwargs& a) {
  dispatch(a, "direction", [&](auto zero) {
    using T = decltype(zero);
    SmoothTorsionCall<T> call{};
    call.graph = graph_of(a);
    call.num_triplets = number<int64_t>(a, "num_triplets");
    call.even = number<bool>(a, "even");
    call.direction = at<const T>(a, "direction");
    call.fade = at<const T>(a, "fade");
    call.direction_tangent = at<const T>(a, "direction_tangent");
    call.fade_tangent = at<const T>(a, "fade_tangent");
    call.grad_point = at<const T>(a, "grad_point");
    call.point = at<T>(a, "point");
    call.grad_direction_in = at<T>(a, "grad_direction_in");
    call.grad_direction_out = at<T>(a, "grad_direction_out");
    call.grad_fade = at<T>(a, "grad_fade");
    call.scratch = at<T>(a, "scratch");
    cuda::smooth_torsion(call, number<int64_t>(a, "num_edges"), pass_of(a), nullptr);
  });
}

void radial_filter(const py::kwargs& a) {
  dispatch(a, "x", [&](auto zero) {
    using T = decltype(zero);
    RadialFilterCall<T> call{};
    call.num_edges = number<int64_t>(a, "num_edges");
    call.channels = number<int>(a, "channels");
    call.num_radial = number<int>(a, "num_radial");
    call.x = at<const T>(a, "x");
    call.bessel = at<const T>(a, "bessel");
    call.weight = at<const T>(a, "weight");
    call.grad_out = at<const T>(a, "grad_out");
    call.x_tangent = at<const T>(a, "x_tangent");
    call.bessel_tangent = at<const T>(a, "bessel_tangent");
    call.weight_tangent = at<const T>(a, "weight_tangent");
    call.out = at<T>(a, "out");
    call.grad_x = at<T>(a, "grad_x");
    call.grad_bessel = at<T>(a, "grad_bessel");
    call.grad_weight = at<T>(a, "grad_weight");
    cuda::radial_filter(call, pass_of(a), nullptr);
  });
}

void silu(const py::kwargs& a) {
  dispatch(a, "x", [&](auto zero) {
    using T = decltype(zero);
    const SiluCall<T> call{at<const T>(a, "x"), at<const T>(a, "grad"), at<const T>(a, "tangent"), at<T>(a, "y"),
                           at<T>(a, "grad_x")};
    cuda::silu(call, pass_of(a), number<int64_t>(a, "size"), nullptr);
  });
}

void segment_sum(const py::kwargs& a) {
  dispatch(a, "x", [&](auto zero) {
    using T = decltype(zero);
    cuda::segment_sum(at<const T>(a, "x"), at<const int64_t>(a, "ptr"), at<const int64_t>(a, "index"),
                      number<int64_t>(a, "num_segments"), number<int64_t>(a, "channels"), at<T>(a, "out"), nullptr);
  });
}

void gather(const py::kwargs& a) {
  dispatch(a, "x", [&](auto zero) {
    using T = decltype(zero);
    cuda::gather(at<const T>(a, "x"), at<const int64_t>(a, "index"), number<int64_t>(a, "num_rows"),
                 number<int64_t>(a, "channels"), at<T>(a, "out"), nullptr);
  });
}

void sum_chunks(const py::kwargs& a) {
  dispatch(a, "parts", [&](auto zero) {
    using T = decltype(zero);
    ChunkSums<T> call{number<int64_t>(a, "chunks"), at<const T>(a, "parts"), {}, {}};
    const auto sums = py::cast<py::list>(a["sums"]);
    for (size_t k = 0; k < sums.size(); ++k) {
      const auto array = py::cast<py::array_t<T, py::array::c_style>>(sums[k]);
      call.sizes[k] = array.size();
      call.sums[k] = const_cast<T*>(array.data());
    }
    cuda::sum_chunks(call, nullptr);
  });
}

}  // namespace

PYBIND11_MODULE(kernels, m) {
  m.def("radial_basis", &radial_basis);
  m.def("torsion_reference", &torsion_reference);
  m.def("smooth_torsion", &smooth_torsion);
  m.def("radial_filter", &radial_filter);
  m.def("silu", &silu);
  m.def("segment_sum", &segment_sum);
  m.def("gather", &gather);
  m.def("sum_chunks", &sum_chunks);
  bind_gated_sum(m);
  bind_neighbors(m);
}

}  // namespace spherenet::test
