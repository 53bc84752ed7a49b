// The vectorized kernels with 256-bit registers. The pragma must follow the standard headers: see simd.h.
#if defined(__x86_64__) && defined(__GNUC__)
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <new>
#include <type_traits>
#include <utility>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif
#define SN_ISA avx2
#define SN_VECTOR_BYTES 32
#include "operators.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
