// The launchers of csrc/cuda as Python functions of NumPy arrays: keywords are the fields of their argument structs,
// and results are written into arrays that the caller gives. Built by tests/cuda_harness.py.
#include "arrays.h"

namespace spherenet::test {

void bind_gated_sum(py::module_& m);  // bindings_gated_sum.cpp

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
    cuda::sum_chunks(at<const T>(a, "parts"), number<int64_t>(a, "chunks"), number<int64_t>(a, "size"),
                     at<T>(a, "sums"), nullptr);
  });
}

}  // namespace

PYBIND11_MODULE(kernels, m) {
  m.def("radial_basis", &radial_basis);
  m.def("torsion_reference", &torsion_reference);
  m.def("silu", &silu);
  m.def("segment_sum", &segment_sum);
  m.def("gather", &gather);
  m.def("sum_chunks", &sum_chunks);
  bind_gated_sum(m);
}

}  // namespace spherenet::test
