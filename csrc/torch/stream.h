// Where an operator runs: on the CPU, or on torch's current stream of the GPU that holds its tensors.
//
// torch keeps its streams in libtorch_cuda. This library does not link it, so that one build loads on every torch: the
// function is looked up in the copy that torch itself has loaded.
#pragma once
#include <dlfcn.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

#include <vector>

#include "../kernels.h"

namespace spherenet::ops {

using torch::stable::Tensor;

#ifdef SPHERENET_FAST_CUDA
inline cuda::Stream current_stream(int32_t device) {
  using Get = AOTITorchError (*)(int32_t, void**);
  static const Get get = [] {
    void* library = dlopen("libtorch_cuda.so", RTLD_LAZY | RTLD_NOLOAD);
    return reinterpret_cast<Get>(library ? dlsym(library, "aoti_torch_get_current_cuda_stream") : nullptr);
  }();
  void* stream = nullptr;
  STD_TORCH_CHECK(get && get(device, &stream) == 0, "spherenet_fast: expected a current stream of cuda:", device,
                  " from torch's libtorch_cuda.so, got none");
  return stream;
}
#endif

// Whether kernels of csrc/cuda take the tensor. In the test that runs them on the CPU (tests/cuda) they take all.
inline bool takes_cuda_kernels(const Tensor& x) {
#ifdef SPHERENET_FAST_CUDA_ON_CPU
  return true;
#else
  return x.is_cuda();
#endif
}

// Runs cpu(), or gpu(stream) while the device of x is the current one; nothing waits for what it enqueues.
template <class Cpu, class Gpu>
void run_where(const Tensor& x, const Cpu& cpu, const Gpu& gpu) {
#ifdef SPHERENET_FAST_CUDA_ON_CPU
  return gpu(cuda::Stream(nullptr));
#else
#ifdef SPHERENET_FAST_CUDA
  if (takes_cuda_kernels(x)) {
    const torch::stable::accelerator::DeviceGuard guard(x.get_device_index());
    return gpu(current_stream(x.get_device_index()));
  }
#endif
  cpu();
#endif
}

// Sums over the rows of parts [chunks, all sizes together], in the order of the rows, whose columns belong to one of up
// to four tensors after the other.
template <class T>
void sum_chunks(const Tensor& parts, const std::vector<Tensor>& sums) {
  ChunkSums<T> call{parts.size(0), static_cast<const T*>(parts.const_data_ptr()), {}, {}};
  for (size_t k = 0; k < sums.size(); ++k) {
    call.sizes[k] = sums[k].numel();
    call.sums[k] = static_cast<T*>(sums[k].mutable_data_ptr());
  }
  run_where(parts, [&] { spherenet::sum_chunks(call); }, [&](auto stream) { cuda::sum_chunks(call, stream); });
}

// One implementation serves every device that has kernels: void implement(torch::stable::detail::StableLibrary&).
#ifdef SPHERENET_FAST_CUDA
#define SN_IMPLEMENT(implement)                                                   \
  STABLE_TORCH_LIBRARY_IMPL(spherenet_fast, CPU, library) { implement(library); } \
  STABLE_TORCH_LIBRARY_IMPL(spherenet_fast, CUDA, library) { implement(library); }
#else
#define SN_IMPLEMENT(implement) \
  STABLE_TORCH_LIBRARY_IMPL(spherenet_fast, CPU, library) { implement(library); }
#endif

}  // namespace spherenet::ops
