// silu and both its derivatives: one pass over memory each, 16 bytes of every array a thread.
#include "../math/silu.h"
#include "launch.h"
#include "vector.h"

namespace spherenet::cuda {
namespace {

constexpr int kThreads = 256;

// Numbers first .. first + kWidth of every array.
template <Pass kPass, int kWidth, class T>
__device__ void silu_packed(const SiluCall<T>& call, int64_t first) {
  using Pack = Packed<T, kWidth>;
  const auto load = [&](const T* from) { return *reinterpret_cast<const Pack*>(from + first); };
  const Pack x = load(call.x);
  Pack grad{}, tangent{}, y{}, grad_x{};
  if (kPass != Pass::kForward) grad = load(call.grad);
  if (kPass == Pass::kDoubleBackward) tangent = load(call.tangent);
  for (int i = 0; i < kWidth; ++i) {
    if constexpr (kPass == Pass::kForward) y.at[i] = spherenet::silu(x.at[i]);
    if constexpr (kPass == Pass::kBackward) grad_x.at[i] = silu_vjp(x.at[i], grad.at[i]);
    if constexpr (kPass == Pass::kDoubleBackward) {
      const Dual<T> both{x.at[i], tangent.at[i]};
      y.at[i] = spherenet::silu(both).tangent;
      grad_x.at[i] = silu_vjp(both, grad.at[i]).tangent;
    }
  }
  if (kPass != Pass::kBackward) *reinterpret_cast<Pack*>(call.y + first) = y;
  if (kPass != Pass::kForward) *reinterpret_cast<Pack*>(call.grad_x + first) = grad_x;
}

template <class T, Pass kPass, int kWidth>
__global__ void __launch_bounds__(kThreads) silu_kernel(SiluCall<T> call, int64_t size) {
  const int64_t first = (int64_t(blockIdx.x) * kThreads + threadIdx.x) * kWidth;
  if (first + kWidth <= size) {
    silu_packed<kPass, kWidth>(call, first);
  } else {
    for (int64_t i = first; i < size; ++i) silu_packed<kPass, 1>(call, i);
  }
}

template <Pass kPass, class T>
void run(const SiluCall<T>& call, int64_t size, Stream stream) {
  // The last numbers, fewer than a pack, are taken one by one.
  if (can_pack(0, call.x, call.grad, call.tangent, call.y, call.grad_x)) {
    launch("silu", silu_kernel<T, kPass, kPacked<T>>, ceil_div(size, kThreads * kPacked<T>), kThreads, 0, stream, call,
           size);
  } else {
    launch("silu", silu_kernel<T, kPass, 1>, ceil_div(size, kThreads), kThreads, 0, stream, call, size);
  }
}

}  // namespace

template <class T>
void silu(const SiluCall<T>& call, Pass pass, int64_t size, Stream stream) {
  switch (pass) {
    case Pass::kForward:
      return run<Pass::kForward>(call, size, stream);
    case Pass::kBackward:
      return run<Pass::kBackward>(call, size, stream);
    case Pass::kDoubleBackward:
      return run<Pass::kDoubleBackward>(call, size, stream);
  }
}

template void silu(const SiluCall<float>&, Pass, int64_t, Stream);
template void silu(const SiluCall<double>&, Pass, int64_t, Stream);

}  // namespace spherenet::cuda
