// What the operators share: checks of tensor arguments, pointers, dtype dispatch.
// Only this folder sees torch, through its stable ABI. A message names the argument, what was expected and what came.
//
// Shapes, dtypes and devices are checked always, before anything runs. The values of index arrays are checked on the
// CPU; on a GPU reading them back would wait for it, so there the same checks run only if SPHERENET_FAST_CHECKS=1 is in
// the environment, and recording a CUDA graph fails. Unchecked indices out of range read and write anywhere.
// With SPHERENET_FAST_CHECKS=1 arrays that describe one thing twice, as an index and its transpose do, are compared, on
// any device: wrong ones that are in range give wrong numbers.
#pragma once
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "../kernels.h"

namespace spherenet::ops {

using torch::headeronly::DeviceType;
using torch::headeronly::ScalarType;
using torch::stable::Device;
using torch::stable::Tensor;
using OptionalTensor = std::optional<Tensor>;

// A negative size is written as "any".
inline std::string shape_text(const std::vector<int64_t>& shape) {
  std::string text;
  for (int64_t size : shape) text += (text.empty() ? "" : ", ") + (size < 0 ? "any" : std::to_string(size));
  return "[" + text + "]";
}
inline std::string shape_of(const Tensor& t) { return shape_text({t.sizes().begin(), t.sizes().end()}); }

inline std::string name_of(const Device& device) {
  if (device.type() == DeviceType::CPU) return "cpu";
  return device.type() == DeviceType::CUDA ? "cuda:" + std::to_string(device.index()) : "another device";
}

// Checks tensor arguments, all of which must be where the first one is. A size of -1 in `shape` is free.
class Checks {
 public:
  Checks(const char* first, const Tensor& x) : first_(first), device_(x.device()) {}

  void operator()(const char* name, const Tensor& t, ScalarType dtype, std::vector<int64_t> shape) const {
    const Device device = t.device();
    STD_TORCH_CHECK(
        device.type() == device_.type() && (device.type() == DeviceType::CPU || device.index() == device_.index()),
        name, ": expected device ", name_of(device_), " as for ", first_, ", got ", name_of(device));
    STD_TORCH_CHECK(t.scalar_type() == dtype, name, ": expected dtype ", torch::headeronly::toString(dtype), ", got ",
                    torch::headeronly::toString(t.scalar_type()));
    bool same = t.dim() == int64_t(shape.size());
    for (size_t i = 0; same && i < shape.size(); ++i) same = shape[i] < 0 || t.size(int64_t(i)) == shape[i];
    STD_TORCH_CHECK(same, name, ": expected shape ", shape_text(shape), ", got ", shape_of(t));
  }

  // Whether the values of index arrays are to be checked; see above.
  bool read_values() const { return device_.type() == DeviceType::CPU || compare_values(); }

  // Whether index arrays are to be compared with each other; see above.
  bool compare_values() const {
    const char* wanted = std::getenv("SPHERENET_FAST_CHECKS");
    return wanted && !std::strcmp(wanted, "1");
  }

 private:
  const char* first_;
  Device device_;
};

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

// Not by torch::stable::new_empty, for which the dispatcher looks up the operator by its name in every call: an
// operator on few atoms makes dozens of tensors.
inline Tensor empty(const Tensor& like, std::vector<int64_t> shape, ScalarType type) {
  std::vector<int64_t> strides(shape.size());
  int64_t stride = 1;
  for (size_t i = shape.size(); i-- > 0; stride *= shape[i] > 1 ? shape[i] : 1) strides[i] = stride;
  const int32_t dtype = torch::stable::detail::to<int32_t>(torch::stable::detail::from(type));
  int32_t device = 0, index = 0;
  AtenTensorHandle made = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device));
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(like.get(), &index));
  STABLE_TORCH_ERROR_CODE_CHECK(
      aoti_torch_empty_strided(int64_t(shape.size()), shape.data(), strides.data(), dtype, device, index, &made));
  return Tensor(made);
}
inline Tensor empty(const Tensor& like, std::vector<int64_t> shape) {
  return empty(like, std::move(shape), like.scalar_type());
}

inline Tensor dense(const Tensor& t) { return t.is_contiguous() ? t : torch::stable::contiguous(t); }
// Whether t [N, K] lies in memory as [K, N], and not as [N, K] too.
inline bool is_transposed(const Tensor& t) {
  return t.stride(0) == 1 && t.stride(1) == t.size(0) && !t.is_contiguous();
}
inline OptionalTensor dense(const OptionalTensor& t) { return t ? OptionalTensor(dense(*t)) : t; }

// The numbers of an index array, which is copied to the CPU where it is elsewhere.
template <class Index = int64_t>
class IndexValues {
 public:
  explicit IndexValues(const Tensor& t)
      : values_(t.is_cpu() ? t : torch::stable::to(t, Device(DeviceType::CPU))), from_(data<Index>(values_)) {}
  Index operator[](int64_t k) const { return from_[k]; }
  int64_t size() const { return values_.numel(); }

 private:
  Tensor values_;
  const Index* from_;
};

// Ascending offsets from 0 to at most `most`, the number of rows; rows past the last offset are padding.
inline void check_pointers(const char* name, const IndexValues<>& ptr, int64_t most) {
  const int64_t count = ptr.size() - 1;
  bool ok = ptr[0] == 0 && ptr[count] <= most;
  for (int64_t n = 0; ok && n < count; ++n) ok = ptr[n] <= ptr[n + 1];
  STD_TORCH_CHECK(ok, name, ": expected ascending offsets from 0 to at most ", most, ", got some that are not");
}
inline void check_range(const char* name, const IndexValues<>& index, int64_t low, int64_t high) {
  for (int64_t k = 0; k < index.size(); ++k)
    STD_TORCH_CHECK(index[k] >= low && index[k] < high, name, ": expected values in ", low, " .. ", high - 1, ", got ",
                    index[k], " at position ", k);
}

// Every output row is written by the one tile that index names: a row named twice would leave another unwritten.
// So the first `count` positions name the rows below `count`, each once; the others name some row.
inline void check_permutation(const char* name, const IndexValues<>& index, int64_t count) {
  check_range(name, index, 0, index.size());
  std::vector<bool> seen(count);
  for (int64_t k = 0; k < count; ++k) {
    STD_TORCH_CHECK(index[k] < count, name, ": expected values in 0 .. ", count - 1, ", got ", index[k],
                    " at position ", k);
    STD_TORCH_CHECK(!seen[index[k]], name, ": expected every number once, got ", index[k], " twice");
    seen[index[k]] = true;
  }
}

// index[row] is n for the rows ptr[n] .. ptr[n+1], or for what `order` has at those places. All of them are in range.
inline void check_transpose(const char* name, const IndexValues<>& index, const IndexValues<>& ptr,
                            const std::optional<IndexValues<>>& order) {
  for (int64_t n = 0; n + 1 < ptr.size(); ++n) {
    for (int64_t k = ptr[n]; k < ptr[n + 1]; ++k) {
      const int64_t row = order ? (*order)[k] : k;
      STD_TORCH_CHECK(index[row] == n, name, ": expected ", n, " at position ", row, " as ptr says, got ", index[row]);
    }
  }
}

}  // namespace spherenet::ops
