// Sums of rows over segments, and their transpose.
#pragma once
#include "../kernels.h"

namespace spherenet {

// out[n] = sum of x[index[k]] (x[k] where index is null) for k in ptr[n] .. ptr[n+1], n in [begin, end)
template <class T>
void segment_sum(const T* x /* [E,C] */, const int64_t* ptr /* [N+1] */, const int64_t* index /* [E] */,
                 int64_t channels, T* out /* [N,C] */, int64_t begin, int64_t end);

// out[e] = x[index[e]], 0 where index[e] is -1, for e in [begin, end)
template <class T>
void gather(const T* x /* [N,C] */, const int64_t* index /* [E] */, int64_t channels, T* out /* [E,C] */, int64_t begin,
            int64_t end);

namespace cuda {

template <class T>
void segment_sum(const T* x, const int64_t* ptr, const int64_t* index, int64_t num_segments, int64_t channels, T* out,
                 Stream stream);
template <class T>
void gather(const T* x /* [N,C] */, const int64_t* index /* [E], -1: a row of zeros */, int64_t num_rows /* E */,
            int64_t channels, T* out /* [E,C] */, Stream stream);

}  // namespace cuda

}  // namespace spherenet
