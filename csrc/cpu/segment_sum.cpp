// Sums of rows over segments, edges to atoms in the order of the edges; their transpose; sums over chunks of work.
#include "../math/segment_sum.h"

#include <algorithm>

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

template <class T>
void gather(const T* x, const int64_t* index, int64_t channels, T* out, int64_t begin, int64_t end) {
  for (int64_t e = begin; e < end; ++e) {
    if (index[e] < 0) {
      std::fill_n(out + e * channels, channels, T(0));
    } else {
      std::copy_n(x + index[e] * channels, channels, out + e * channels);
    }
  }
}

template <class T>
void sum_chunks(const ChunkSums<T>& call) {
  int64_t width = 0;
  for (int64_t size : call.sizes) width += size;
  const T* column = call.parts;
  for (int k = 0; k < 4; column += call.sizes[k], ++k) {
    std::fill_n(call.sums[k], call.sizes[k], T(0));
    for (int64_t chunk = 0; chunk < call.chunks; ++chunk)
      for (int64_t i = 0; i < call.sizes[k]; ++i) call.sums[k][i] += column[chunk * width + i];
  }
}

template void segment_sum(const float*, const int64_t*, const int64_t*, int64_t, float*, int64_t, int64_t);
template void segment_sum(const double*, const int64_t*, const int64_t*, int64_t, double*, int64_t, int64_t);
template void gather(const float*, const int64_t*, int64_t, float*, int64_t, int64_t);
template void gather(const double*, const int64_t*, int64_t, double*, int64_t, int64_t);
template void sum_chunks(const ChunkSums<float>&);
template void sum_chunks(const ChunkSums<double>&);

}  // namespace spherenet
