// Numbers that one thread loads and stores together: 16 bytes where arrays allow it.
#pragma once
#include <cuda_runtime.h>

#include <cstdint>

namespace spherenet::cuda {

template <class T, int kWidth>
struct alignas(kWidth * sizeof(T)) Packed {
  T at[kWidth];
};

template <class T>
constexpr int kPacked = 16 / int(sizeof(T));

// Whether rows of `size` numbers from each pointer can be read kPacked at a time; null pointers do not matter.
template <class T, class... Rest>
bool can_pack(int64_t size, const T* first, const Rest*... rest) {
  const auto aligned = [](const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; };
  return size % kPacked<T> == 0 && aligned(first) && (aligned(rest) && ...);
}

}  // namespace spherenet::cuda
