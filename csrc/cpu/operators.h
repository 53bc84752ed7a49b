// The vectorized operators. Each header ends with its kernels' SN_KERNEL; every instruction set includes all of them.
#pragma once
#include "gated_sum.h"
#include "outer_sum.h"
#include "product.h"
#include "radial_basis.h"
#include "radial_filter.h"
#include "row_chain.h"
#include "silu.h"
#include "smooth_torsion.h"
