// The vectorized kernels with 512-bit registers. The pragma must follow the standard headers: see simd.h.
#if defined(__x86_64__) && defined(__GNUC__)
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <new>
#include <type_traits>
#include <utility>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,fma"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512vl,avx512bw,avx512dq,fma")
#endif
#define SN_ISA avx512
#define SN_VECTOR_BYTES 64
#include "operators.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
