// The vectorised kernels for any processor, and the choice of an instruction set at run time.
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
#include "gated_sum.h"
#include "outer_sum.h"
#include "product.h"
#include "radial_basis.h"
#include "radial_filter.h"
#include "silu.h"
#include "smooth_torsion.h"

namespace spherenet {

#if defined(__x86_64__) && defined(__GNUC__)
namespace avx2 {
template <class T>
GatedSumHandle gated_sum(const GatedSumCall<T>& call, Pass pass);
template <class T>
void radial_basis(const RadialBasisCall<T>& call, Pass pass, int64_t chunk);
template <class T>
void silu(const SiluCall<T>& call, Pass pass, int64_t begin, int64_t end);
template <class T>
void smooth_torsion(const SmoothTorsionCall<T>& call, Pass pass, int64_t begin, int64_t end);
template <class T>
void outer_sum(const OuterSumCall<T>& call, int64_t begin, int64_t end);
template <class T>
int64_t packed_size(const ProductCall<T>& call);
template <class T>
void pack_product(const ProductCall<T>& call, T* packed);
template <class T>
void product(const ProductCall<T>& call, int64_t begin, int64_t end);
template <class T>
void radial_filter(const RadialFilterCall<T>& call, Pass pass, int64_t chunk);
}
namespace avx512 {
template <class T>
GatedSumHandle gated_sum(const GatedSumCall<T>& call, Pass pass);
template <class T>
void radial_basis(const RadialBasisCall<T>& call, Pass pass, int64_t chunk);
template <class T>
void silu(const SiluCall<T>& call, Pass pass, int64_t begin, int64_t end);
template <class T>
void smooth_torsion(const SmoothTorsionCall<T>& call, Pass pass, int64_t begin, int64_t end);
template <class T>
void outer_sum(const OuterSumCall<T>& call, int64_t begin, int64_t end);
template <class T>
int64_t packed_size(const ProductCall<T>& call);
template <class T>
void pack_product(const ProductCall<T>& call, T* packed);
template <class T>
void product(const ProductCall<T>& call, int64_t begin, int64_t end);
template <class T>
void radial_filter(const RadialFilterCall<T>& call, Pass pass, int64_t chunk);
}
#endif

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

Chunks gated_sum_chunks(const TileGraph& graph) {
  // Small enough to balance a few dozen threads, large enough that a chunk's weight gradients cost little beside it.
  constexpr int64_t kWork = 4096, kMost = 64;
  const int64_t total = graph.num_nodes ? graph.pair_ptr[graph.num_nodes] + graph.num_nodes : 0;
  const int64_t count = (total + kWork - 1) / kWork;
  return {count < 1 ? 1 : count > kMost ? kMost : count, total};
}

namespace {

enum class InstructionSet { kBaseline, kAvx2, kAvx512 };

InstructionSet instruction_set() {
  const char* name = cpu_instruction_set();
  if (!std::strcmp(name, "avx512")) return InstructionSet::kAvx512;
  return std::strcmp(name, "avx2") ? InstructionSet::kBaseline : InstructionSet::kAvx2;
}

// f(namespace) for the chosen instruction set; x86 alone has others than the baseline.
#if defined(__x86_64__) && defined(__GNUC__)
#define SN_DISPATCH(call)                \
  switch (instruction_set()) {           \
    case InstructionSet::kAvx512:        \
      return avx512::call;               \
    case InstructionSet::kAvx2:          \
      return avx2::call;                 \
    case InstructionSet::kBaseline:      \
      break;                             \
  }                                      \
  return baseline::call
#else
#define SN_DISPATCH(call) return baseline::call
#endif

template <class T>
GatedSumHandle make_gated_sum(const GatedSumCall<T>& call, Pass pass) {
  SN_DISPATCH(gated_sum(call, pass));
}

}  // namespace

template <class T>
GatedSum<T>::GatedSum(const GatedSumCall<T>& call, Pass pass) : handle_(make_gated_sum(call, pass)) {}

template class GatedSum<float>;
template class GatedSum<double>;

template <class T>
void radial_basis(const RadialBasisCall<T>& call, Pass pass, int64_t chunk) {
  SN_DISPATCH(radial_basis(call, pass, chunk));
}

template void radial_basis(const RadialBasisCall<float>&, Pass, int64_t);
template void radial_basis(const RadialBasisCall<double>&, Pass, int64_t);

template <class T>
void silu(const SiluCall<T>& call, Pass pass, int64_t begin, int64_t end) {
  SN_DISPATCH(silu(call, pass, begin, end));
}

template void silu(const SiluCall<float>&, Pass, int64_t, int64_t);
template void silu(const SiluCall<double>&, Pass, int64_t, int64_t);

template <class T>
void smooth_torsion(const SmoothTorsionCall<T>& call, Pass pass, int64_t begin, int64_t end) {
  SN_DISPATCH(smooth_torsion(call, pass, begin, end));
}

template void smooth_torsion(const SmoothTorsionCall<float>&, Pass, int64_t, int64_t);
template void smooth_torsion(const SmoothTorsionCall<double>&, Pass, int64_t, int64_t);

template <class T>
void outer_sum(const OuterSumCall<T>& call, int64_t begin, int64_t end) {
  SN_DISPATCH(outer_sum(call, begin, end));
}

template void outer_sum(const OuterSumCall<float>&, int64_t, int64_t);
template void outer_sum(const OuterSumCall<double>&, int64_t, int64_t);

template <class T>
int64_t packed_size(const ProductCall<T>& call) {
  SN_DISPATCH(packed_size(call));
}

template int64_t packed_size(const ProductCall<float>&);
template int64_t packed_size(const ProductCall<double>&);

template <class T>
void pack_product(const ProductCall<T>& call, T* packed) {
  SN_DISPATCH(pack_product(call, packed));
}

template void pack_product(const ProductCall<float>&, float*);
template void pack_product(const ProductCall<double>&, double*);

template <class T>
void product(const ProductCall<T>& call, int64_t begin, int64_t end) {
  SN_DISPATCH(product(call, begin, end));
}

template void product(const ProductCall<float>&, int64_t, int64_t);
template void product(const ProductCall<double>&, int64_t, int64_t);

template <class T>
void radial_filter(const RadialFilterCall<T>& call, Pass pass, int64_t chunk) {
  SN_DISPATCH(radial_filter(call, pass, chunk));
}

template void radial_filter(const RadialFilterCall<float>&, Pass, int64_t);
template void radial_filter(const RadialFilterCall<double>&, Pass, int64_t);

}  // namespace spherenet
