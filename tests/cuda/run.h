// Programs that run the kernels under a sanitizer: what they share.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <string>
#include <vector>

#include "../cpp/systems.h"

namespace spherenet::test {

// A function that runs some kernels on a graph, found by run_kernels.cpp.
class Registered {
 public:
  using Run = void (*)(const System&);
  Registered(const char* name, Run run) : name(name), run(run), next_(first_) { first_ = this; }
  static const Registered* first() { return first_; }
  const Registered* next() const { return next_; }

  const char* const name;
  const Run run;

 private:
  static inline Registered* first_ = nullptr;
  Registered* next_;
};

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
