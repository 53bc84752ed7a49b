// SN_KERNEL: the one line by which a vectorized kernel reaches every instruction set. It ends the operator's header:
//
//   SN_KERNEL(void, silu, SiluCall, (Pass pass, int64_t begin, int64_t end), (pass, begin, end))
//
// says that namespace SN_ISA has a template void silu(const SiluCall<T>& call, Pass pass, int64_t begin, int64_t end).
// The template is instantiated for float and double. In dispatch.cpp, which takes the baseline, the line also defines
// the function of that name in namespace spherenet, which calls the kernel for the processor at hand.
#pragma once
#include "simd.h"

#define SN_LIST(...) __VA_ARGS__

#define SN_KERNEL_TEMPLATE(Result, name, Call, parameters) \
  template <class T>                                       \
  Result name(const Call<T>& call, SN_LIST parameters)

#define SN_KERNEL_INSTANCES(Result, name, Call, parameters)          \
  template Result name(const Call<float>& call, SN_LIST parameters); \
  template Result name(const Call<double>& call, SN_LIST parameters);

#if !defined(SN_DISPATCH)

#define SN_KERNEL(Result, name, Call, parameters, arguments) \
  namespace spherenet {                                      \
  namespace SN_ISA {                                         \
  SN_KERNEL_INSTANCES(Result, name, Call, parameters)        \
  }                                                          \
  }

#elif defined(__x86_64__) && defined(__GNUC__)

namespace spherenet {
enum class InstructionSet { kBaseline, kAvx2, kAvx512 };
InstructionSet instruction_set();
}  // namespace spherenet

#define SN_KERNEL(Result, name, Call, parameters, arguments) \
  namespace spherenet {                                      \
  namespace avx2 {                                           \
  SN_KERNEL_TEMPLATE(Result, name, Call, parameters);        \
  }                                                          \
  namespace avx512 {                                         \
  SN_KERNEL_TEMPLATE(Result, name, Call, parameters);        \
  }                                                          \
  SN_KERNEL_TEMPLATE(Result, name, Call, parameters) {       \
    switch (instruction_set()) {                             \
      case InstructionSet::kAvx512:                          \
        return avx512::name(call, SN_LIST arguments);        \
      case InstructionSet::kAvx2:                            \
        return avx2::name(call, SN_LIST arguments);          \
      case InstructionSet::kBaseline:                        \
        break;                                               \
    }                                                        \
    return baseline::name(call, SN_LIST arguments);          \
  }                                                          \
  SN_KERNEL_INSTANCES(Result, name, Call, parameters)        \
  }

#else  // other processors have the baseline alone

#define SN_KERNEL(Result, name, Call, parameters, arguments)                                             \
  namespace spherenet {                                                                                  \
  SN_KERNEL_TEMPLATE(Result, name, Call, parameters) { return baseline::name(call, SN_LIST arguments); } \
  SN_KERNEL_INSTANCES(Result, name, Call, parameters)                                                    \
  }

#endif
