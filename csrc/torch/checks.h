// What the operators share: checks of tensor arguments, pointers, dtype dispatch.
// Only this folder sees torch, through its stable ABI. A message names the argument, what was expected and what came.
#pragma once
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <optional>
#include <sstream>
#include <string>
#include <tuple>
#include <vector>

#include "../kernels.h"

namespace spherenet::ops {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using OptionalTensor = std::optional<Tensor>;

inline std::string shape_of(const Tensor& t) {
  std::ostringstream out;
  out << "[";
  for (int64_t i = 0; i < t.dim(); ++i) out << (i ? ", " : "") << t.size(i);
  out << "]";
  return out.str();
}

// Checks of one tensor argument. A size of -1 in `shape` is free.
inline void check(const char* name, const Tensor& t, ScalarType dtype, std::vector<int64_t> shape) {
  STD_TORCH_CHECK(t.is_cpu(), name, ": expected a tensor on the CPU like the others, got one on another device");
  STD_TORCH_CHECK(t.scalar_type() == dtype, name, ": expected dtype ", torch::headeronly::toString(dtype), ", got ",
                  torch::headeronly::toString(t.scalar_type()));
  bool same = t.dim() == int64_t(shape.size());
  std::ostringstream expected;
  for (size_t i = 0; i < shape.size(); ++i) {
    same = same && (shape[i] < 0 || t.size(int64_t(i)) == shape[i]);
    expected << (i ? ", " : "");
    if (shape[i] < 0) {
      expected << "any";
    } else {
      expected << shape[i];
    }
  }
  STD_TORCH_CHECK(same, name, ": expected shape [", expected.str(), "], got ", shape_of(t));
}

inline ScalarType floating_dtype(const char* name, const Tensor& t) {
  const ScalarType dtype = t.scalar_type();
  STD_TORCH_CHECK(dtype == ScalarType::Float || dtype == ScalarType::Double, name,
                  ": expected dtype float32 or float64, got ", torch::headeronly::toString(dtype));
  return dtype;
}

// Runs f(T{}) for the float type of a dtype that floating_dtype has checked.
template <class F>
auto dispatch(ScalarType dtype, const F& f) {
  return dtype == ScalarType::Float ? f(float{}) : f(double{});
}

template <class T>
const T* data(const Tensor& t) {
  return static_cast<const T*>(t.const_data_ptr());
}
template <class T>
const T* data(const OptionalTensor& t) {
  return t ? data<T>(*t) : nullptr;
}
template <class T>
T* mutable_data(const Tensor& t) {
  return static_cast<T*>(t.mutable_data_ptr());
}

inline Tensor empty(const Tensor& like, std::vector<int64_t> shape) { return torch::stable::new_empty(like, shape); }

// sums[i] = sum over chunks of parts [chunks, size], in the order of the chunks.
template <class T>
void sum_chunks(const T* parts, int64_t chunks, int64_t size, T* sums) {
  for (int64_t i = 0; i < size; ++i) sums[i] = 0;
  for (int64_t chunk = 0; chunk < chunks; ++chunk)
    for (int64_t i = 0; i < size; ++i) sums[i] += parts[chunk * size + i];
}

inline void check_pointers(const char* name, const int64_t* ptr, int64_t count, int64_t last) {
  bool ok = ptr[0] == 0 && ptr[count] == last;
  for (int64_t n = 0; ok && n < count; ++n) ok = ptr[n] <= ptr[n + 1];
  STD_TORCH_CHECK(ok, name, ": expected ascending offsets from 0 to ", last, ", got some that are not");
}
inline void check_range(const char* name, const int64_t* index, int64_t count, int64_t low, int64_t high) {
  for (int64_t k = 0; k < count; ++k)
    STD_TORCH_CHECK(index[k] >= low && index[k] < high, name, ": expected values in ", low, " .. ", high - 1, ", got ",
                    index[k], " at position ", k);
}

// Every output row is written by the one tile that index names: a row named twice would leave another unwritten.
inline void check_permutation(const char* name, const int64_t* index, int64_t count) {
  check_range(name, index, count, 0, count);
  std::vector<bool> seen(count);
  for (int64_t k = 0; k < count; ++k) {
    STD_TORCH_CHECK(!seen[index[k]], name, ": expected every number once, got ", index[k], " twice");
    seen[index[k]] = true;
  }
}

// Contiguous copies where needed: kernels index with these arrays.
struct GraphTensors {
  Tensor in_ptr, out_ptr, out_edge, rev, pair_ptr;

  GraphTensors(const Tensor& in_ptr_, const Tensor& out_ptr_, const Tensor& out_edge_, const Tensor& rev_,
               const Tensor& pair_ptr_)
      : in_ptr(contiguous(in_ptr_)), out_ptr(contiguous(out_ptr_)), out_edge(contiguous(out_edge_)),
        rev(contiguous(rev_)), pair_ptr(contiguous(pair_ptr_)) {}

  // Checks everything a kernel indexes with: a bad graph is an error, not a crash.
  TileGraph checked(int64_t num_edges, int64_t* num_pairs) const {
    const int64_t N = in_ptr.numel() - 1;
    STD_TORCH_CHECK(N >= 0, "in_ptr: expected at least one offset, got shape ", shape_of(in_ptr));
    check("in_ptr", in_ptr, ScalarType::Long, {N + 1});
    check("out_ptr", out_ptr, ScalarType::Long, {N + 1});
    check("out_edge", out_edge, ScalarType::Long, {num_edges});
    check("rev", rev, ScalarType::Long, {num_edges});
    check("pair_ptr", pair_ptr, ScalarType::Long, {N + 1});
    const TileGraph graph{N, data<int64_t>(in_ptr), data<int64_t>(out_ptr), data<int64_t>(out_edge),
                          data<int64_t>(rev), data<int64_t>(pair_ptr)};
    check_pointers("in_ptr", graph.in_ptr, N, num_edges);
    check_pointers("out_ptr", graph.out_ptr, N, num_edges);
    check_permutation("out_edge", graph.out_edge, num_edges);
    check_range("rev", graph.rev, num_edges, -1, num_edges);
    *num_pairs = 0;
    for (int64_t j = 0; j <= N; ++j) {
      STD_TORCH_CHECK(graph.pair_ptr[j] == *num_pairs, "pair_ptr: expected ", *num_pairs, " at atom ", j, ", got ",
                      graph.pair_ptr[j]);
      if (j < N) *num_pairs += (graph.in_ptr[j + 1] - graph.in_ptr[j]) * (graph.out_ptr[j + 1] - graph.out_ptr[j]);
    }
    return graph;
  }
};

}  // namespace spherenet::ops
