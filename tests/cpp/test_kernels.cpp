// The CPU kernels without torch: all passes, float and double, every instruction set that the processor has.
//
// Outputs start as NaN, so a number that is not written shows; inputs and outputs have their exact size, so that
// AddressSanitizer sees a step beyond. In double, derivatives are compared with central differences.
// Prints what it ran; returns 0 if all is well. Built by tests/math/test_sanitizers.py; any C++17 compiler will do:
//   c++ -std=c++17 -O2 tests/cpp/*.cpp csrc/cpu/*.cpp -o test_kernels && ./test_kernels
#include <cstdlib>
#include <cstring>

#include "passes.h"

using namespace spherenet;
using namespace spherenet::test;

int main() {
  for (const char* name : {"baseline", "avx2", "avx512"}) {
    setenv("SPHERENET_FAST_CPU", name, 1);
    if (std::strcmp(cpu_instruction_set(), name)) {
      std::printf("%s: not on this processor\n", name);
      continue;
    }
    const int before = failures;
    for (const Registered* kernel = Registered::first(); kernel; kernel = kernel->next()) {
      context = std::string(name) + ", " + kernel->name;
      if (kernel->alone) kernel->alone();
      for (const System& system : systems()) {
        context = std::string(name) + ", " + system.name + ", " + kernel->name;
        if (kernel->on) kernel->on(system);
      }
    }
    std::printf("%s: %s\n", name, failures == before ? "passed" : "failed");
  }
  return failures != 0;
}
