// What the programs that try kernels share: whom they run, and what they find.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <string>
#include <vector>

#include "systems.h"

namespace spherenet::test {

// A function that tries some kernels, on a graph or on none. `main` finds all of them.
class Registered {
 public:
  Registered(const char* name, void (*run)(const System&)) : name(name), on(run), next_(first_) { first_ = this; }
  Registered(const char* name, void (*run)()) : name(name), alone(run), next_(first_) { first_ = this; }
  static const Registered* first() { return first_; }
  const Registered* next() const { return next_; }

  const char* const name;
  void (*const on)(const System&) = nullptr;
  void (*const alone)() = nullptr;

 private:
  static inline Registered* first_ = nullptr;
  Registered* next_;
};

// The neighbors that the torsions of a graph are measured to, by the kernel of the program: [triplets], see macros.h.
std::vector<int32_t> torsion_codes(const System& system);

inline int failures = 0;

// Fails where a kernel left a number of its output out: these start as NaN.
template <class T>
std::vector<T> unwritten(int64_t count) {
  return std::vector<T>(count, std::numeric_limits<T>::quiet_NaN());
}
template <class T>
void check_written(const char* name, const std::vector<T>& out) {
  int64_t missing = 0;
  for (const T& number : out) missing += !std::isfinite(number);
  if (!missing) return;
  ++failures;
  std::fprintf(stderr, "%s: %lld of %zu numbers are not finite, or were not written\n", name,
               static_cast<long long>(missing), out.size());
}

}  // namespace spherenet::test
