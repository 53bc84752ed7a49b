// segment_sum and gather: sums of rows over segments, and their transpose. Each is the other's derivative.
#include "../math/segment_sum.h"

#include "checks.h"
#include "stream.h"

namespace spherenet::ops {
namespace {

// segment is the transpose of ptr and index, for the derivative alone.
Tensor segment_sum(Tensor x_, Tensor ptr_, OptionalTensor index_, OptionalTensor segment) {
  const Tensor x = dense(x_), ptr = dense(ptr_);
  const OptionalTensor index = dense(index_);
  const ScalarType dtype = floating_dtype("x", x);
  const Checks check("x", x);
  check("x", x, dtype, {-1, -1});
  check("ptr", ptr, ScalarType::Long, {-1});
  const int64_t N = ptr.size(0) - 1, C = x.size(1), rows = x.size(0);
  STD_TORCH_CHECK(N >= 0, "ptr: expected at least one offset, got shape ", shape_of(ptr));
  if (index) check("index", *index, ScalarType::Long, {rows});
  if (segment) check("segment", *segment, ScalarType::Long, {rows});
  if (check.read_values()) {
    const IndexValues<> offsets(ptr);
    check_pointers("ptr", offsets, rows);
    std::optional<IndexValues<>> order;
    if (index) check_permutation("index", order.emplace(*index), offsets[N]);
    if (segment && check.compare_values()) check_transpose("segment", IndexValues<>(dense(*segment)), offsets, order);
  }
  Tensor out = empty(x, {N, C});
  dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    const T* from = data<T>(x);
    const int64_t *offsets = data<int64_t>(ptr), *row = data<int64_t>(index);
    T* to = mutable_data<T>(out);
    run_where(
        x,
        [&] {
          torch::stable::parallel_for(0, N, 64, [&](int64_t begin, int64_t end) {
            spherenet::segment_sum(from, offsets, row, C, to, begin, end);
          });
        },
        [&](auto stream) { cuda::segment_sum(from, offsets, row, N, C, to, stream); });
  });
  return out;
}

// ptr and perm are the transposed index, for the derivative alone.
Tensor gather(Tensor x_, Tensor index_, Tensor ptr, OptionalTensor perm) {
  const Tensor x = dense(x_), index = dense(index_);
  const ScalarType dtype = floating_dtype("x", x);
  const Checks check("x", x);
  check("x", x, dtype, {-1, -1});
  check("index", index, ScalarType::Long, {-1});
  check("ptr", ptr, ScalarType::Long, {x.size(0) + 1});
  if (perm) check("perm", *perm, ScalarType::Long, {index.numel()});
  if (check.read_values()) {
    const IndexValues<> rows(index);
    check_range("index", rows, -1, x.size(0));
    if (check.compare_values()) {
      const IndexValues<> offsets(dense(ptr));
      check_pointers("ptr", offsets, index.numel());
      std::optional<IndexValues<>> order;
      if (perm) check_permutation("perm", order.emplace(dense(*perm)), offsets[x.size(0)]);
      check_transpose("index", rows, offsets, order);
    }
  }
  const int64_t E = index.size(0), C = x.size(1);
  Tensor out = empty(x, {E, C});
  dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    const T* from = data<T>(x);
    const int64_t* row = data<int64_t>(index);
    T* to = mutable_data<T>(out);
    run_where(
        x,
        [&] {
          torch::stable::parallel_for(
              0, E, 1024, [&](int64_t begin, int64_t end) { spherenet::gather(from, row, C, to, begin, end); });
        },
        [&](auto stream) { cuda::gather(from, row, E, C, to, stream); });
  });
  return out;
}

void implement(torch::stable::detail::StableLibrary& m) {
  m.impl("segment_sum", TORCH_BOX(&segment_sum));
  m.impl("gather", TORCH_BOX(&gather));
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(spherenet_fast, m) {
  m.def("segment_sum(Tensor x, Tensor ptr, Tensor? index, Tensor? segment) -> Tensor");
  m.def("gather(Tensor x, Tensor index, Tensor ptr, Tensor? perm) -> Tensor");
}
SN_IMPLEMENT(implement)

}  // namespace spherenet::ops
