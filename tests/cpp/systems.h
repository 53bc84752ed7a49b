// Small graphs in plain C++ for the test of the kernels, and random numbers that are the same everywhere.
#pragma once
#include <cmath>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "../../csrc/kernels.h"

namespace spherenet::test {

// Uniform in [-1, 1).
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 2654435769u + 1) {}
  double operator()() {
    state_ = state_ * 6364136223846793005ull + 1442695040888963407ull;
    return double(int64_t(state_ >> 11)) / double(1ll << 52) - 1;
  }
  template <class T>
  std::vector<T> numbers(int64_t count, double scale = 1) {
    std::vector<T> out(count);
    for (T& number : out) number = T(scale * (*this)());
    return out;
  }

 private:
  uint64_t state_;
};

// Every array is on the heap and exactly as long as the kernels may read it, for AddressSanitizer.
struct System {
  std::string name;
  std::vector<int64_t> in_ptr, out_ptr, out_edge, rev, triplet_ptr;
  std::vector<double> vec;  // [E, 3], sender to receiver

  int64_t num_nodes() const { return int64_t(in_ptr.size()) - 1; }
  int64_t num_edges() const { return int64_t(rev.size()); }
  int64_t num_triplets() const { return triplet_ptr.back(); }
  TileGraph graph() const {
    return {num_nodes(), in_ptr.data(), out_ptr.data(), out_edge.data(), rev.data(), triplet_ptr.data()};
  }
};

using Positions = std::vector<std::vector<double>>;      // [N][3]
using Pairs = std::vector<std::pair<int64_t, int64_t>>;  // sender, receiver

struct Edge {
  int64_t sender, receiver;
  std::vector<double> vec;  // [3]
  bool operator==(const Edge& other) const {
    return sender == other.sender && receiver == other.receiver && vec == other.vec;
  }
};

inline System make_system(const std::string& name, int64_t num_nodes, const std::vector<Edge>& unsorted) {
  System out;
  out.name = name;
  std::vector<Edge> edges;
  out.in_ptr = {0};
  for (int64_t receiver = 0; receiver < num_nodes; ++receiver) {
    for (const auto& edge : unsorted)
      if (edge.receiver == receiver) edges.push_back(edge);
    out.in_ptr.push_back(int64_t(edges.size()));
  }
  out.out_ptr = {0};
  out.triplet_ptr = {0};
  for (int64_t sender = 0; sender < num_nodes; ++sender) {
    for (size_t e = 0; e < edges.size(); ++e)
      if (edges[e].sender == sender) out.out_edge.push_back(int64_t(e));
    out.out_ptr.push_back(int64_t(out.out_edge.size()));
    const int64_t num_in = out.in_ptr[sender + 1] - out.in_ptr[sender];
    out.triplet_ptr.push_back(out.triplet_ptr.back() + num_in * (out.out_ptr[sender + 1] - out.out_ptr[sender]));
  }
  for (const auto& edge : edges) {
    const Edge opposite{edge.receiver, edge.sender, {-edge.vec[0], -edge.vec[1], -edge.vec[2]}};
    int64_t reverse = -1;
    for (size_t e = 0; e < edges.size(); ++e)
      if (edges[e] == opposite) reverse = int64_t(e);
    out.rev.push_back(reverse);
    for (int k = 0; k < 3; ++k) out.vec.push_back(edge.vec[k]);
  }
  for (auto* array : {&out.in_ptr, &out.out_ptr, &out.out_edge, &out.rev, &out.triplet_ptr}) array->shrink_to_fit();
  out.vec.shrink_to_fit();
  return out;
}

inline System make_system(const std::string& name, const Positions& pos, const Pairs& pairs) {
  std::vector<Edge> edges;
  for (const auto& [sender, receiver] : pairs) {
    edges.push_back({sender, receiver, {}});
    for (int k = 0; k < 3; ++k) edges.back().vec.push_back(pos[receiver][k] - pos[sender][k]);
  }
  return make_system(name, int64_t(pos.size()), edges);
}

inline double distance(const std::vector<double>& a, const std::vector<double>& b) {
  return std::hypot(a[0] - b[0], a[1] - b[1], a[2] - b[2]);
}

// Atoms at least 0.9 apart.
inline Positions scattered(int count, uint64_t seed) {
  Random random(seed);
  Positions pos;
  while (int(pos.size()) < count) {
    const std::vector<double> candidate = random.numbers<double>(3, 2.2);
    bool free = true;
    for (const auto& other : pos) free = free && distance(candidate, other) > 0.9;
    if (free) pos.push_back(candidate);
  }
  return pos;
}

inline Pairs within(const Positions& pos, double cutoff) {
  Pairs pairs;
  for (size_t i = 0; i < pos.size(); ++i)
    for (size_t j = 0; j < pos.size(); ++j)
      if (i != j && distance(pos[i], pos[j]) < cutoff) pairs.emplace_back(i, j);
  return pairs;
}

// One atom with so many neighbors that do not see each other.
inline System star(int64_t neighbors) {
  Positions pos = {{0, 0, 0}};
  Pairs spokes;
  Random random(2);
  for (int64_t leaf = 1; leaf <= neighbors; ++leaf) {
    pos.push_back(random.numbers<double>(3, 2));
    spokes.emplace_back(leaf, 0);
    spokes.emplace_back(0, leaf);
  }
  return make_system("star", pos, spokes);
}

inline std::vector<System> systems() {
  const Positions pos = scattered(8, 1);
  Positions isolated = pos, line;
  isolated.back() = {50, 0, 0};
  Pairs directed;
  for (const auto& edge : within(pos, 3.0))
    if ((edge.first + 2 * edge.second) % 3) directed.push_back(edge);
  for (int k = 0; k < 4; ++k) line.push_back({1.1 * k, 0, 0});
  return {
      make_system("molecule", pos, within(pos, 3.0)),     make_system("isolated atom", isolated, within(isolated, 3.0)),
      make_system("not symmetric", pos, directed),        star(19),
      make_system("line", line, within(line, 3.5)),       make_system("one edge", {pos[0], pos[1]}, Pairs{{0, 1}}),
      make_system("no edges", {pos[0], pos[1]}, Pairs{}), make_system("no atoms", {}, Pairs{}),
  };
}

}  // namespace spherenet::test
