// NumPy arrays as the pointers of the kernels' argument structs, given by the names of the fields.
#pragma once
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <stdexcept>
#include <string>
#include <type_traits>

#include "../../csrc/kernels.h"

namespace spherenet::test {

namespace py = pybind11;

// The field `name` of the arguments as a pointer; null where it is absent or None.
template <class T>
T* at(const py::dict& arguments, const char* name) {
  if (!arguments.contains(name) || arguments[name].is_none()) return nullptr;
  const auto array = py::cast<py::array>(arguments[name]);
  if (!array.dtype().is(py::dtype::of<std::remove_const_t<T>>()))
    throw std::runtime_error(std::string(name) + ": another dtype was expected");
  if (!(array.flags() & py::array::c_style)) throw std::runtime_error(std::string(name) + ": not contiguous");
  return static_cast<T*>(const_cast<void*>(array.data()));
}

template <class T>
T number(const py::dict& arguments, const char* name) {
  return py::cast<T>(arguments[name]);
}

inline Pass pass_of(const py::dict& arguments) { return Pass(number<int>(arguments, "pass")); }

inline TileGraph graph_of(const py::dict& arguments) {
  return {number<int64_t>(arguments, "num_nodes"), at<const int64_t>(arguments, "in_ptr"),
          at<const int64_t>(arguments, "out_ptr"), at<const int64_t>(arguments, "out_edge"),
          at<const int64_t>(arguments, "rev"),     at<const int64_t>(arguments, "triplet_ptr")};
}

// f(T{}) for the dtype of the array `name`.
template <class F>
void dispatch(const py::dict& arguments, const char* name, const F& f) {
  if (py::cast<py::array>(arguments[name]).dtype().is(py::dtype::of<float>())) {
    f(float{});
  } else {
    f(double{});
  }
}

}  // namespace spherenet::test
