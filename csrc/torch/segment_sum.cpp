// segment_sum and gather: sums of rows over segments, and their transpose. Each is the other's derivative.
#include "checks.h"

namespace spherenet::ops {
namespace {

Tensor segment_sum(Tensor x_, Tensor ptr_, OptionalTensor index) {
  const Tensor x = contiguous(x_), ptr = contiguous(ptr_);
  if (index) index = contiguous(*index);
  const ScalarType dtype = floating_dtype("x", x);
  check("x", x, dtype, {-1, -1});
  check("ptr", ptr, ScalarType::Long, {-1});
  const int64_t N = ptr.size(0) - 1, C = x.size(1), rows = x.size(0);
  STD_TORCH_CHECK(N >= 0, "ptr: expected at least one offset, got shape ", shape_of(ptr));
  check_pointers("ptr", data<int64_t>(ptr), N, rows);
  if (index) check("index", *index, ScalarType::Long, {rows});
  if (index) check_permutation("index", data<int64_t>(index), rows);
  Tensor out = empty(x, {N, C});
  dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    torch::stable::parallel_for(0, N, 16, [&](int64_t begin, int64_t end) {
      spherenet::segment_sum(data<T>(x), data<int64_t>(ptr), data<int64_t>(index), C, mutable_data<T>(out), begin, end);
    });
  });
  return out;
}

// ptr and perm are the transposed index, for the derivative alone.
Tensor gather(Tensor x_, Tensor index, Tensor ptr, OptionalTensor perm) {
  const Tensor x = contiguous(x_);
  const ScalarType dtype = floating_dtype("x", x);
  check("x", x, dtype, {-1, -1});
  check("index", index, ScalarType::Long, {-1});
  check("ptr", ptr, ScalarType::Long, {x.size(0) + 1});
  if (perm) check("perm", *perm, ScalarType::Long, {index.numel()});
  const int64_t E = index.size(0), C = x.size(1);
  const Tensor rows = contiguous(index);
  check_range("index", data<int64_t>(rows), E, 0, x.size(0));
  Tensor out = empty(x, {E, C});
  dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    const T* from = data<T>(x);
    const int64_t* row = data<int64_t>(rows);
    T* to = mutable_data<T>(out);
    torch::stable::parallel_for(0, E, 64, [&](int64_t begin, int64_t end) {
      for (int64_t e = begin; e < end; ++e) std::copy_n(from + row[e] * C, C, to + e * C);
    });
  });
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(spherenet_fast, m) {
  m.def("segment_sum(Tensor x, Tensor ptr, Tensor? index) -> Tensor");
  m.def("gather(Tensor x, Tensor index, Tensor ptr, Tensor? perm) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(spherenet_fast, CPU, m) {
  m.impl("segment_sum", TORCH_BOX(&segment_sum));
  m.impl("gather", TORCH_BOX(&gather));
}

}  // namespace spherenet::ops
