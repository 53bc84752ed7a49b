// Sums of rows over segments: edges to atoms, in the order of the edges.
#include "../kernels.h"

namespace spherenet {

template <class T>
void segment_sum(const T* x, const int64_t* ptr, const int64_t* index, int64_t channels, T* out, int64_t begin,
                 int64_t end) {
  for (int64_t n = begin; n < end; ++n) {
    T* __restrict__ to = out + n * channels;
    for (int64_t c = 0; c < channels; ++c) to[c] = 0;
    for (int64_t k = ptr[n]; k < ptr[n + 1]; ++k) {
      const T* row = x + (index ? index[k] : k) * channels;
      for (int64_t c = 0; c < channels; ++c) to[c] += row[c];
    }
  }
}

template void segment_sum(const float*, const int64_t*, const int64_t*, int64_t, float*, int64_t, int64_t);
template void segment_sum(const double*, const int64_t*, const int64_t*, int64_t, double*, int64_t, int64_t);

}  // namespace spherenet
