// The vectorized kernels for any processor, and the choice of an instruction set at run time.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <new>
#include <type_traits>

// Almost every x86 processor takes another path: there the baseline is built quickly rather than well.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("O1")
#endif
#define SN_DISPATCH
#include "operators.h"

namespace spherenet {

const char* cpu_instruction_set() {
  const char* wanted = std::getenv("SPHERENET_FAST_CPU");
  const auto allowed = [&](const char* name) { return !wanted || !*wanted || !std::strcmp(wanted, name); };
#if defined(__x86_64__) && defined(__GNUC__)
  const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool has_avx512 = has_avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                          __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
  if (has_avx512 && allowed("avx512")) return "avx512";
  if (has_avx2 && (allowed("avx2") || allowed("avx512"))) return "avx2";
#else
  (void)allowed;
#endif
  return "baseline";
}

#if defined(__x86_64__) && defined(__GNUC__)
InstructionSet instruction_set() {
  const char* name = cpu_instruction_set();
  if (!std::strcmp(name, "avx512")) return InstructionSet::kAvx512;
  return std::strcmp(name, "avx2") ? InstructionSet::kBaseline : InstructionSet::kAvx2;
}
#endif

}  // namespace spherenet
