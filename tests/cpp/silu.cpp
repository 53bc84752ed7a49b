// Tries the kernels of the activation: all passes, float and double.
// Built with SPHERENET_FAST_CUDA_ON_CPU it runs the CUDA kernels, else those for the CPU.
#include "../../csrc/math/silu.h"

#include "passes.h"

namespace spherenet::test {
namespace {

#ifndef SPHERENET_FAST_CUDA_ON_CPU

template <class T>
Result<T> silu(Pass pass, const Arrays<T>& inputs, const Arrays<T>& cotangents, const Arrays<T>& tangents) {
  const int64_t size = int64_t(inputs[0].size());
  auto y = unwritten<T>(pass == Pass::kBackward ? 0 : size), grad_x = unwritten<T>(pass == Pass::kForward ? 0 : size);
  const SiluCall<T> call{inputs[0].data(), pass == Pass::kForward ? nullptr : cotangents[0].data(),
                         pass == Pass::kDoubleBackward ? tangents[0].data() : nullptr, y.data(), grad_x.data()};
  const int64_t middle = size / 3;
  spherenet::silu(call, pass, middle, size);
  spherenet::silu(call, pass, 0, middle);
  Result<T> out;
  if (pass != Pass::kBackward) out.values = {y};
  if (pass != Pass::kForward) out.grads = {grad_x};
  return out;
}

void check_silu(int64_t size) {
  context = std::string(cpu_instruction_set()) + ", silu, " + std::to_string(size) + " numbers";
  Random random(5);
  const auto kernel = [](Pass pass, const auto& in, const auto& cotangents, const auto& tangents) {
    return silu(pass, in, cotangents, tangents);
  };
  check_passes(kernel, {random.numbers<double>(size, 12)}, random);
}

void check_silus() {
  for (int64_t size : {0, 1, 13, 100}) check_silu(size);
}

const Registered kRegistered("silu", check_silus);

#else

template <class T>
void silu(const System& system) {
  Random random(5);
  const int64_t size = system.num_edges() + 1030;  // more than a block of float
  const auto x = random.numbers<T>(size, 12), grad = random.numbers<T>(size), tangent = random.numbers<T>(size);
  for (const Pass pass : {Pass::kForward, Pass::kBackward, Pass::kDoubleBackward}) {
    const bool vjp = pass != Pass::kForward;
    auto y = unwritten<T>(pass != Pass::kBackward ? size : 0), grad_x = unwritten<T>(vjp ? size : 0);
    cuda::silu<T>({x.data(), vjp ? grad.data() : nullptr, pass == Pass::kDoubleBackward ? tangent.data() : nullptr,
                   y.data(), grad_x.data()},
                  pass, size, nullptr);
    check_written("silu", y);
    check_written("silu", grad_x);
  }
}

void silus(const System& system) {
  silu<float>(system);
  silu<double>(system);
}

const Registered kRegistered("silu", silus);

#endif

}  // namespace
}  // namespace spherenet::test
