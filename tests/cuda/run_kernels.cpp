// Runs the CUDA kernels of one operator (argument: its name) on the CPU, on graphs of all kinds. Arrays have their
// exact size, so that AddressSanitizer sees a step beyond. Built by tests/cuda/test_cuda_sanitizers.py; prints what
// ran, returns 0 if all is well.
#include <cstring>

#include "../cpp/registered.h"

using namespace spherenet::test;

namespace {

// Two atoms in a cell so small that both see images of themselves.
System periodic() {
  const double cell[3][3] = {{2.6, 0.2, -0.1}, {0.5, 2.9, 0.3}, {-0.4, 0.6, 3.1}};
  const Positions pos = {{0.1, 0.2, 0.3}, {1.4, 1.1, 1.9}};
  std::vector<Edge> edges;
  for (int64_t sender = 0; sender < 2; ++sender)
    for (int64_t receiver = 0; receiver < 2; ++receiver)
      for (int image = 0; image < 27; ++image) {
        Edge edge{sender, receiver, {0, 0, 0}};
        const int shift[3] = {image % 3 - 1, image / 3 % 3 - 1, image / 9 - 1};
        for (int k = 0; k < 3; ++k) {
          double across = 0;
          for (int c = 0; c < 3; ++c) across += shift[c] * cell[c][k];
          edge.vec[k] = (pos[receiver][k] - pos[sender][k]) + across;
        }
        const double length = std::hypot(edge.vec[0], edge.vec[1], edge.vec[2]);
        if (length > 0 && length < 3.6) edges.push_back(edge);
      }
  return make_system("periodic", 2, edges);
}

// Edges that belong to no atom after those that do, as in a graph of fixed capacity.
System padded(System system) {
  system.name += ", padded";
  for (int extra = 0; extra < 5; ++extra) {
    system.out_edge.push_back(system.num_edges());
    system.rev.push_back(-1);
    for (int k = 0; k < 3; ++k) system.vec.push_back(NAN);
  }
  system.out_edge.shrink_to_fit();
  system.rev.shrink_to_fit();
  system.vec.shrink_to_fit();
  return system;
}

// More neighbors than are kept in shared memory at once, and one edge out.
System many_neighbors() {
  Random random(7);
  std::vector<Edge> edges = {{0, 1, {1, 0, 0}}};
  for (int64_t sender = 2; sender < 1102; ++sender) edges.push_back({sender, 0, random.numbers<double>(3)});
  return make_system("many neighbors", 1102, edges);
}

std::vector<System> all_systems() {
  std::vector<System> out = systems();
  const Positions four = scattered(4, 3);
  out.push_back(make_system("four atoms", four, within(four, 9.0)));
  out.push_back(star(60));
  out.push_back(many_neighbors());
  out.push_back(periodic());
  for (const char* name : {"molecule", "no edges"})
    for (const System& system : systems())
      if (system.name == name) out.push_back(padded(system));
  return out;
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 2) return 2;
  for (const System& system : all_systems())
    for (const Registered* kernel = Registered::first(); kernel; kernel = kernel->next()) {
      if (std::strcmp(kernel->name, arguments[1])) continue;
      const int before = failures;
      kernel->on(system);
      std::printf("%s, %s: %s\n", system.name.c_str(), kernel->name, failures == before ? "passed" : "failed");
    }
  return failures != 0;
}
