// Tries chains of layers over rows: all passes, float and double. For the CPU alone.
#include "../../csrc/math/row_chain.h"

#ifndef SPHERENET_FAST_CUDA_ON_CPU
#include "passes.h"

namespace spherenet::test {
namespace {

// A residual layer of x, times a layer of r, and a layer of the product: the last two are the results.
// inputs: x [rows, kWide], r [rows, kFew]
constexpr int64_t kWide = 21, kFew = 3, kNarrow = 6;

template <class T>
struct Chain {
  static constexpr int kInputs = 2, kSteps = 3;
  const int64_t widths[kInputs + kSteps] = {kWide, kFew, kWide, kWide, kNarrow};
  const int64_t sizes[kSteps] = {kWide * kWide, kWide * kFew, kNarrow * kWide};
  int64_t rows;
  Arrays<T> weights, bias, packed;
  RowChainStep<T> steps[kSteps] = {};
  RowChainValue<T> values[kInputs + kSteps] = {};
  RowChainCall<T> call{};

  Chain(int64_t rows, const Arrays<T>& inputs, bool with_sums) : rows(rows) {
    Random random(9);
    for (int64_t size : sizes) weights.push_back(random.numbers<T>(size));
    bias = {random.numbers<T>(kWide)};
    steps[0] = {0, 0, Combine::kAdd, true};
    steps[1] = {1, 2, Combine::kMultiply, false};
    steps[2] = {3, -1, Combine::kNone, true};
    int64_t at = 0;
    for (int k = 0; k < kSteps; ++k) {
      const int64_t width = widths[kInputs + k], inner = widths[steps[k].source];
      steps[k].product = {inner, width, false, nullptr, weights[k].data(), k == 0 ? bias[0].data() : nullptr};
      steps[k].back_product = {width, inner, true, nullptr, weights[k].data()};
      for (ProductCall<T>* product : {&steps[k].product, &steps[k].back_product}) {
        packed.emplace_back(pack_product(*product, false));
        product->packed = packed.back().empty() ? nullptr : packed.back().data();
        pack_product(*product, true);
      }
      steps[k].weight_at = with_sums ? at : -1;
      at += sizes[k];
      steps[k].bias_at = with_sums && k == 0 ? at : -1;
      at += k == 0 ? kWide : 0;
    }
    for (int v = 0; v < kInputs + kSteps; ++v) values[v].width = widths[v];
    for (int v = 0; v < kInputs; ++v) values[v].known = inputs[v].data();
    values[2].needed = values[3].needed = true;
    call.num_rows = rows, call.part_rows = 60, call.tile_rows = 24;
    call.num_inputs = kInputs, call.num_steps = kSteps;
    call.steps = steps, call.values = values;
    call.sums_size = with_sums ? at : 0;
  }
  Arrays<T> for_steps() const {
    Arrays<T> out;
    for (int k = 0; k < kSteps; ++k) out.push_back(unwritten<T>(rows * widths[kInputs + k]));
    return out;
  }
  Arrays<T> for_inputs() const { return {unwritten<T>(rows * kWide), unwritten<T>(rows * kFew)}; }
  void run(Pass pass) {
    const int64_t parts = (rows + call.part_rows - 1) / call.part_rows;
    auto sums = unwritten<T>(parts * call.sums_size);
    call.sums = sums.data();
    spherenet::row_chain(call, pass, parts / 2, parts);
    spherenet::row_chain(call, pass, 0, parts / 2);
    for (const T sum : sums) check(std::isfinite(double(sum)), "a sum is not finite, or was not written");
  }
};

template <class T>
Result<T> row_chain(int64_t rows, Pass pass, const Arrays<T>& inputs, const Arrays<T>& cotangents,
                    const Arrays<T>& tangents) {
  using C = Chain<T>;
  C forward(rows, inputs, false);
  Arrays<T> h = forward.for_steps(), results = forward.for_steps();
  for (int k = 0; k < C::kSteps; ++k) forward.steps[k].h = h[k].data();
  for (int k : {1, 2}) forward.values[C::kInputs + k].out = results[k].data();
  forward.run(Pass::kForward);
  if (pass == Pass::kForward) return {{results[1], results[2]}, {}};

  C backward(rows, inputs, true);
  Arrays<T> grads = backward.for_inputs(), kept = backward.for_steps();
  for (int k = 0; k < C::kSteps; ++k) backward.steps[k].h = h[k].data(), backward.steps[k].grad_value = kept[k].data();
  for (int v : {0, 1}) backward.values[v].grad_in = grads[v].data();
  for (int k : {1, 2}) backward.values[C::kInputs + k].grad = cotangents[k - 1].data();
  backward.run(Pass::kBackward);
  if (pass == Pass::kBackward) {
    const Arrays<T> stored = grads;
    for (int k = 0; k < C::kSteps; ++k) backward.steps[k].h = nullptr;
    backward.run(Pass::kBackward);
    check(grads == stored, "gradients are others where h is found again");
    return {{}, grads};
  }

  // What the double backward finds for h goes through the chain once more.
  C second(rows, inputs, true), last(rows, inputs, true);
  Arrays<T> of_h = second.for_steps(), of_values = second.for_steps(), through_h = last.for_inputs();
  Arrays<T> of_x = {std::vector<T>(rows * kWide)};
  for (int k = 0; k < C::kSteps; ++k) {
    second.steps[k].h = last.steps[k].h = h[k].data();
    second.steps[k].grad_value = kept[k].data();
    second.steps[k].grad_h_out = of_h[k].data();
    second.values[C::kInputs + k].out = of_values[k].data();
    second.steps[k].bias_at = -1;
    last.steps[k].grad_h = of_h[k].data();
  }
  second.call.sums_size = last.call.sums_size;
  second.values[0].grad_in = of_x[0].data();
  for (int v : {0, 1}) second.values[v].grad = tangents[v].data(), last.values[v].grad_in = through_h[v].data();
  second.run(Pass::kDoubleBackward);
  last.run(Pass::kBackward);
  for (size_t i = 0; i < of_x[0].size(); ++i) through_h[0][i] += of_x[0][i];
  return {{of_values[1], of_values[2]}, through_h};
}

void check_row_chain(int64_t rows) {
  context = std::string(cpu_instruction_set()) + ", row_chain, " + std::to_string(rows) + " rows";
  Random random(10);
  const auto kernel = [&](Pass pass, const auto& in, const auto& cotangents, const auto& tangents) {
    return row_chain(rows, pass, in, cotangents, tangents);
  };
  check_passes(kernel, {random.numbers<double>(rows * kWide), random.numbers<double>(rows * kFew)}, random);
}

void check_row_chains() {
  for (int64_t rows : {1, 24, 131}) check_row_chain(rows);
}

const Registered kRegistered("row_chain", check_row_chains);

}  // namespace
}  // namespace spherenet::test
#endif
