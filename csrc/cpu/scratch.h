// One aligned block of memory handed out in pieces. Lay out twice: the first time it only counts.
#pragma once
#include <cstdlib>
#include <new>

#include "simd.h"

namespace spherenet {
namespace SN_ISA {

class ScratchMemory {
 public:
  ScratchMemory() = default;
  ScratchMemory(const ScratchMemory&) = delete;
  ScratchMemory& operator=(const ScratchMemory&) = delete;
  ~ScratchMemory() { std::free(base_); }

  template <class T>
  T* take(int64_t count) {
    T* piece = base_ ? reinterpret_cast<T*>(base_ + used_) : nullptr;
    used_ += (count * int64_t(sizeof(T)) + kAlignment - 1) / kAlignment * kAlignment;
    return piece;
  }

  // layout(memory) calls take for every piece; it runs twice and leaves valid pointers.
  template <class Layout>
  void build(const Layout& layout) {
    layout(*this);
    base_ = static_cast<char*>(std::aligned_alloc(kAlignment, used_ ? used_ : kAlignment));
    if (!base_) throw std::bad_alloc();
    used_ = 0;
    layout(*this);
  }

 private:
  static constexpr int64_t kAlignment = 64;
  char* base_ = nullptr;
  int64_t used_ = 0;
};

}  // namespace SN_ISA
}  // namespace spherenet
