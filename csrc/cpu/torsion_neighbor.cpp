// The neighbors that all torsions are measured to, tile by tile.
#include "../math/torsion_neighbor.h"

#include <algorithm>
#include <vector>

namespace spherenet {

template <class T>
void torsion_neighbor(const TileGraph& graph, const T* vec, int32_t* neighbor, int64_t begin, int64_t end) {
  std::vector<Azimuth> azimuths;
  std::vector<Vec3<double>> directions;
  const auto unit = [&](int64_t edge, double sign) {
    const Vec3<double> v{double(vec[3 * edge]), double(vec[3 * edge + 1]), double(vec[3 * edge + 2])};
    return (sign * reciprocal_sqrt(dot(v, v))) * v;
  };
  for (int64_t j = begin; j < end; ++j) {
    const int64_t first = graph.in_ptr[j], num_in = graph.in_ptr[j + 1] - first;
    const int64_t first_out = graph.out_ptr[j], num_out = graph.out_ptr[j + 1] - first_out;
    directions.resize(num_in);
    for (int64_t q = 0; q < num_in; ++q) directions[q] = unit(first + q, -1);
    for (int64_t e = 0; e < num_out; ++e) {
      const int64_t edge = graph.out_edge[first_out + e];
      const AxisFrame frame = axis_frame(unit(edge, 1));
      int32_t* column = neighbor + graph.triplet_ptr[j] + e;
      azimuths.clear();
      for (int64_t q = 0; q < num_in; ++q) {
        const double angle = graph.rev[edge] == first + q ? -1 : azimuth(frame, directions[q]);
        if (angle >= 0) azimuths.push_back({angle, int32_t(q)});
        column[q * num_out] = kVanishing;
      }
      const int64_t count = int64_t(azimuths.size());
      std::sort(azimuths.begin(), azimuths.end(), [](const Azimuth& a, const Azimuth& b) { return a.angle < b.angle; });
      for (int64_t own = 0; own < count; ++own)
        column[azimuths[own].neighbor * num_out] = torsion_neighbor(azimuths.data(), count, own);
    }
  }
}

template void torsion_neighbor(const TileGraph&, const float*, int32_t*, int64_t, int64_t);
template void torsion_neighbor(const TileGraph&, const double*, int32_t*, int64_t, int64_t);

}  // namespace spherenet
