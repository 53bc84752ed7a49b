// What belongs to the library as a whole, beside its operators.
#include "../kernels.h"

#ifdef __GLIBC__
// A variable of glibc 2.32 that libstdc++'s shared_ptr reads where it is built with such a glibc: without threads it
// counts without atomic instructions. With this one, which no other library sees, it always takes these, as threads
// need, and the library loads with any older glibc, too.
extern "C" __attribute__((visibility("hidden"))) char __libc_single_threaded;
char __libc_single_threaded = 0;
#endif

// For Python's ctypes: spherenet::cpu_instruction_set.
#ifdef _WIN32
#define SN_EXPORT __declspec(dllexport)
#else
#define SN_EXPORT __attribute__((visibility("default")))
#endif
extern "C" SN_EXPORT const char* spherenet_fast_cpu_instruction_set() { return spherenet::cpu_instruction_set(); }
