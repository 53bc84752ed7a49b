// Sums of rows over segments, rows by index, and sums over chunks: a thread for every number (or 16 bytes of them) of
// the result, which adds in a fixed order.
#include "../math/segment_sum.h"
#include "launch.h"
#include "vector.h"

namespace spherenet::cuda {
namespace {

constexpr int kThreads = 128;

// out [N, C] in packs; channels counts packs.
template <class Pack>
__global__ void __launch_bounds__(kThreads) segment_sum_kernel(const Pack* x, const int64_t* ptr, const int64_t* index,
                                                               int64_t num_segments, int64_t channels, Pack* out) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= num_segments * channels) return;
  const int64_t n = i / channels, c = i - n * channels;
  const int64_t end = ptr[n + 1];
  Pack sum{};
  const auto add = [&](const Pack& row) {
    for (int k = 0; k < int(sizeof(row.at) / sizeof(row.at[0])); ++k) sum.at[k] += row.at[k];
  };
  // Four rows at a time are on their way; they are added in their order.
  constexpr int kAhead = 4;
  int64_t k = ptr[n];
  for (; k + kAhead <= end; k += kAhead) {
    Pack rows[kAhead];
#pragma unroll
    for (int a = 0; a < kAhead; ++a) rows[a] = x[(index ? index[k + a] : k + a) * channels + c];
#pragma unroll
    for (int a = 0; a < kAhead; ++a) add(rows[a]);
  }
  for (; k < end; ++k) add(x[(index ? index[k] : k) * channels + c]);
  out[i] = sum;
}

template <class Pack>
__global__ void __launch_bounds__(kThreads)
    gather_kernel(const Pack* x, const int64_t* index, int64_t num_rows, int64_t channels, Pack* out) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= num_rows * channels) return;
  const int64_t row = i / channels, from = index[row];
  out[i] = from < 0 ? Pack{} : x[from * channels + (i - row * channels)];
}

// A block has kWarp columns and kGroups groups of chunks: each group adds its own in order, then come the groups in
// order. In double, since hundreds of numbers may cancel.
constexpr int kGroups = 16;

template <class T>
__global__ void __launch_bounds__(kWarp* kGroups) sum_chunks_kernel(ChunkSums<T> call, int64_t width) {
  double* partial = SharedPieces(shared_memory).take<double>(kWarp * kGroups);
  const int64_t column = int64_t(blockIdx.x) * kWarp + threadIdx.x;
  const int64_t share = ceil_div(call.chunks, kGroups), first = share * threadIdx.y;
  const int64_t end = first + share < call.chunks ? first + share : call.chunks;
  double sum = 0;
  if (column < width) {
#pragma unroll 8
    for (int64_t chunk = first; chunk < end; ++chunk) sum += double(call.parts[chunk * width + column]);
  }
  partial[threadIdx.y * kWarp + threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y > 0 || column >= width) return;
  for (int group = 1; group < kGroups; ++group) sum += partial[group * kWarp + threadIdx.x];
  int64_t i = column;
#pragma unroll
  for (int k = 0; k < 4; ++k) {  // the array that the column belongs to
    if (i >= 0 && i < call.sizes[k]) call.sums[k][i] = T(sum);
    i -= call.sizes[k];
  }
}

// f(pack, channels in packs) for the widest pack that rows of `channels` numbers allow.
template <class T, class F>
void with_packs(int64_t channels, const T* x, const T* out, const F& f) {
  if (can_pack(channels, x, out)) {
    f(Packed<T, kPacked<T>>{}, channels / kPacked<T>);
  } else {
    f(Packed<T, 1>{}, channels);
  }
}

}  // namespace

template <class T>
void segment_sum(const T* x, const int64_t* ptr, const int64_t* index, int64_t num_segments, int64_t channels, T* out,
                 Stream stream) {
  with_packs(channels, x, out, [&](auto pack, int64_t packs) {
    using Pack = decltype(pack);
    launch("segment_sum", segment_sum_kernel<Pack>, ceil_div(num_segments * packs, kThreads), kThreads, 0, stream,
           reinterpret_cast<const Pack*>(x), ptr, index, num_segments, packs, reinterpret_cast<Pack*>(out));
  });
}

template <class T>
void gather(const T* x, const int64_t* index, int64_t num_rows, int64_t channels, T* out, Stream stream) {
  with_packs(channels, x, out, [&](auto pack, int64_t packs) {
    using Pack = decltype(pack);
    launch("gather", gather_kernel<Pack>, ceil_div(num_rows * packs, kThreads), kThreads, 0, stream,
           reinterpret_cast<const Pack*>(x), index, num_rows, packs, reinterpret_cast<Pack*>(out));
  });
}

template <class T>
void sum_chunks(const ChunkSums<T>& call, Stream stream) {
  int64_t width = 0;
  for (int64_t size : call.sizes) width += size;
  launch("sum_chunks", sum_chunks_kernel<T>, ceil_div(width, kWarp), dim3(kWarp, kGroups),
         kWarp * kGroups * sizeof(double), stream, call, width);
}

template void segment_sum(const float*, const int64_t*, const int64_t*, int64_t, int64_t, float*, Stream);
template void segment_sum(const double*, const int64_t*, const int64_t*, int64_t, int64_t, double*, Stream);
template void gather(const float*, const int64_t*, int64_t, int64_t, float*, Stream);
template void gather(const double*, const int64_t*, int64_t, int64_t, double*, Stream);
template void sum_chunks(const ChunkSums<float>&, Stream);
template void sum_chunks(const ChunkSums<double>&, Stream);

}  // namespace spherenet::cuda
