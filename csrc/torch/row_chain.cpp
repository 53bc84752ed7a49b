// row_chain: layers that treat every row alone, as one operator on the CPU. Its derivatives are put together in Python.
//
// `steps` has five numbers for each step, whose weight [width, width of source] and bias [width] (empty: none) stand at
// its place in `weights` and `biases`: source, silu (0, 1), combine (0: nothing, 1: add, 2: multiply), other (-1:
// none), and whether it is a result (0, 1). In all lists an empty tensor stands for what is absent or not wanted.
#include "../math/row_chain.h"

#include <algorithm>

#include "checks.h"

namespace spherenet::ops {
namespace {

using Tensors = std::vector<Tensor>;
using Numbers = std::vector<int64_t>;

constexpr int64_t kTileRows = 96;  // at most: what the layers hand on stays in the cache
constexpr int64_t kFewRows = 24;   // at least, so that few rows are shared among threads
constexpr int64_t kParts = 16;     // at most, where there are sums over rows
constexpr int64_t kPartRows = 96;  // at least: every part has its own sums
// Multiply-adds, a few tenths of a millisecond, that one thread does alone: another one would save less than waiting
// for it costs on a machine that has other work.
constexpr int64_t kLittleWork = 20'000'000;

Tensors dense(const Tensors& list) {
  Tensors out;
  for (const Tensor& t : list) out.push_back(ops::dense(t));
  return out;
}

template <class T>
const T* data_or_null(const Tensor& t) {
  return t.numel() ? data<T>(t) : nullptr;
}

std::string element(const char* list, size_t k) { return std::string(list) + "[" + std::to_string(k) + "]"; }

struct Layers {
  Tensors rows, weights, biases;
  Numbers steps;

  int inputs() const { return int(rows.size()); }
  int count() const { return int(weights.size()); }
  int64_t number(int step, int which) const { return steps[5 * step + which]; }
  bool is_result(int step) const { return number(step, 4); }
  bool by_inner(int step) const { return is_transposed(weights[step]); }  // how its weight lies in memory
  Tensor nothing() const { return empty(rows[0], {0}); }                  // stands for what is not wanted

  // Checks tensors [M, width] of all inputs or of all steps, where some may be absent, and makes them contiguous.
  Tensors read(const char* name, const Tensors& list, bool of_inputs, bool may_lack = true) const {
    const Tensors& owners = of_inputs ? rows : weights;
    STD_TORCH_CHECK(list.size() == owners.size(), name, ": expected ", owners.size(), " tensors, got ", list.size());
    const Checks check("rows[0]", rows[0]);
    for (size_t k = 0; k < list.size(); ++k)
      if (list[k].numel() || !may_lack)
        check(element(name, k).c_str(), list[k], rows[0].scalar_type(),
              {rows[0].size(0), owners[k].size(of_inputs ? 1 : 0)});
    return dense(list);
  }
};

// Checks all and makes them contiguous.
Layers read_layers(const Tensors& rows, const Tensors& weights, const Tensors& biases, const Numbers& steps) {
  STD_TORCH_CHECK(!rows.empty(), "rows: expected at least one tensor, got none");
  Layers layers{dense(rows), weights, dense(biases), steps};
  STD_TORCH_CHECK(steps.size() == 5 * weights.size() && biases.size() == weights.size(),
                  "steps: expected 5 numbers, a ", "weight and a bias for each step, got ", steps.size(), " numbers, ",
                  weights.size(), " and ", biases.size());
  const Tensor& first = layers.rows[0];
  const Checks check("rows[0]", first);
  const ScalarType dtype = floating_dtype("rows[0]", first);
  std::vector<int64_t> widths;
  for (size_t k = 0; k < layers.rows.size(); ++k) {
    check(element("rows", k).c_str(), layers.rows[k], dtype, {k ? first.size(0) : -1, -1});
    widths.push_back(layers.rows[k].size(1));
  }
  for (int k = 0; k < layers.count(); ++k) {
    const int64_t source = layers.number(k, 0), combine = layers.number(k, 2), other = layers.number(k, 3);
    const int64_t known = int64_t(widths.size());
    STD_TORCH_CHECK(source >= 0 && source < known && combine >= 0 && combine <= 2 && other < known &&
                        (combine != 0) == (other >= 0),
                    "steps: expected step ", k, " to take values below ", known, ", got ", source, " and ", other);
    Tensor& weight = layers.weights[k];
    check(element("weights", k).c_str(), weight, dtype, {-1, widths[source]});
    if (!is_transposed(weight)) weight = ops::dense(weight);
    const int64_t width = weight.size(0);
    if (layers.biases[k].numel()) check(element("biases", k).c_str(), layers.biases[k], dtype, {width});
    STD_TORCH_CHECK(other < 0 || widths[other] == width, "steps: expected two of one width in step ", k, ", got ",
                    width, " and ", other < 0 ? width : widths[other]);
    widths.push_back(width);
  }
  return layers;
}

// The call of a pass, and what its pointers need to stay valid.
template <class T>
struct Plan {
  const Layers& layers;
  RowChainCall<T> call{};
  std::vector<RowChainStep<T>> steps;
  std::vector<RowChainValue<T>> values;
  Tensors packed;
  ProductCall<T>* previous = nullptr;  // that was packed
  int64_t work = 0;                    // multiply-adds

  Plan(const Layers& of, bool with_sums) : layers(of), steps(of.count()) {
    call.num_rows = of.rows[0].size(0);
    for (const Tensor& weight : of.weights) work += call.num_rows * weight.numel();
    if (with_sums) {
      call.part_rows = std::max(share(kParts), kPartRows);
    } else {  // every tile reads all weights, which for few rows takes as long as what is done with them
      const int64_t threads = is_little() ? 1 : torch::stable::get_num_threads();
      const int64_t tiles = (call.num_rows + kTileRows - 1) / kTileRows;
      call.part_rows = std::max(share((tiles + threads - 1) / threads * threads), kFewRows);
    }
    call.tile_rows = std::min(call.part_rows, kTileRows);
    call.num_inputs = of.inputs();
    call.num_steps = of.count();
    for (const Tensor& t : of.rows) values.push_back({t.size(1), data<T>(t)});
    for (int k = 0; k < of.count(); ++k) {
      steps[k] = {int(of.number(k, 0)), int(of.number(k, 3)), Combine(of.number(k, 2)), of.number(k, 1) != 0};
      steps[k].weight_at = steps[k].bias_at = -1;
      values.push_back({of.weights[k].size(0)});
    }
  }

  bool is_little() const { return work < kLittleWork; }
  RowChainValue<T>& result(int step) { return values[layers.inputs() + step]; }
  // Of the rows among `count`, a multiple of the products' tiles.
  int64_t share(int64_t count) const { return ((call.num_rows + count - 1) / count + 11) / 12 * 12; }
  int64_t parts() const { return (call.num_rows + call.part_rows - 1) / call.part_rows; }

  // The products of a step, forward and back, in the order in which they run.
  void pack(ProductCall<T>& product) {
    if (previous) previous->next = &product;
    previous = &product;
    const int64_t size = pack_product(product, false);
    if (!size) return;
    packed.push_back(empty(layers.rows[0], {size}));
    product.packed = mutable_data<T>(packed.back());
    pack_product(product, true);
  }
  void set_product(int k) {
    const Tensor& weight = layers.weights[k];
    steps[k].product = {weight.size(1), weight.size(0),  layers.by_inner(k),
                        nullptr,        data<T>(weight), data_or_null<T>(layers.biases[k])};
    pack(steps[k].product);
  }
  void set_back_product(int k) {
    const Tensor& weight = layers.weights[k];
    steps[k].back_product = {weight.size(0), weight.size(1), !layers.by_inner(k), nullptr, data<T>(weight)};
    pack(steps[k].back_product);
  }

  // Marks what the backward passes need to compute again for a value's number.
  void need(int v) {
    if (v < layers.inputs() || values[v].known || values[v].needed) return;
    values[v].needed = true;
    const int other = steps[v - layers.inputs()].other;
    if (other >= 0) need(other);
  }

  // Where h is not stored it is found again.
  void set_saved(const Tensors& h, const Tensors& results) {
    for (int k = 0; k < layers.count(); ++k) {
      steps[k].h = const_cast<T*>(data_or_null<T>(h[k]));
      if (!steps[k].h) set_product(k);
      result(k).known = data_or_null<T>(results[k]);
    }
  }

  void run(Pass pass) {
    call.steps = steps.data();
    call.values = values.data();
    torch::stable::parallel_for(0, parts(), is_little() ? parts() : 1,
                                [&](int64_t begin, int64_t end) { spherenet::row_chain(call, pass, begin, end); });
  }

  // Runs with memory for the parts' sums, then adds the parts. The gradients of the weights, then of the biases.
  Tensors run_with_sums(Pass pass) {
    const Tensor sums = empty(layers.rows[0], {parts() * call.sums_size});
    call.sums = mutable_data<T>(sums);
    run(pass);
    Tensors out;
    std::vector<std::pair<T*, int64_t>> to;  // where a gradient goes, and its place in the sums
    const auto add = [&](const Tensor& like, int64_t at) {
      if (at < 0) return out.push_back(layers.nothing());
      out.push_back(empty(like, {like.sizes().begin(), like.sizes().end()}));
      to.push_back({mutable_data<T>(out.back()), at});
    };
    for (int k = 0; k < layers.count(); ++k) add(layers.weights[k], steps[k].weight_at);
    for (int k = 0; k < layers.count(); ++k) add(layers.biases[k], steps[k].bias_at);
    torch::stable::parallel_for(0, int64_t(to.size()), 1, [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) {
        const auto [into, at] = to[n];
        const int64_t stop = n + 1 < int64_t(to.size()) ? to[n + 1].second : call.sums_size;
        std::fill(into, into + (stop - at), T(0));
        for (int64_t part = 0; part < parts(); ++part) {
          const T* from = call.sums + part * call.sums_size + at;
          for (int64_t i = 0; i < stop - at; ++i) into[i] += from[i];
        }
      }
    });
    return out;
  }
};

Tensors row_chain(Tensors rows, Tensors weights, Tensors biases, Numbers numbers, bool save) {
  const Layers layers = read_layers(rows, weights, biases, numbers);
  const Tensor& like = layers.rows[0];
  Tensors results, h;
  dispatch(like.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    Plan<T> plan(layers, false);
    const int64_t M = plan.call.num_rows;
    for (int k = 0; k < layers.count(); ++k) {
      plan.set_product(k);
      if (layers.is_result(k)) {
        results.push_back(empty(like, {M, plan.result(k).width}));
        plan.result(k).out = mutable_data<T>(results.back());
      }
      if (save) {
        h.push_back(empty(like, {M, plan.result(k).width}));
        plan.steps[k].h = mutable_data<T>(h.back());
      }
    }
    plan.run(Pass::kForward);
  });
  results.insert(results.end(), h.begin(), h.end());
  return results;
}

// grads [steps]: cotangents of the results; grads_h [steps]; h [steps]: all, or none of them, which then are found
// again; results [steps]: those that are at hand; wanted [inputs]. Returns the gradients of the inputs, weights and
// biases, empty where no cotangent reaches them, then the cotangents of all values if they are to be kept.
Tensors row_chain_backward(Tensors grads, Tensors grads_h, Tensors rows, Tensors weights, Tensors biases, Tensors h,
                           Tensors results, Numbers numbers, Numbers wanted, bool of_weights, bool keep) {
  const Layers layers = read_layers(rows, weights, biases, numbers);
  const Tensor& like = layers.rows[0];
  grads = layers.read("grads", grads, false), grads_h = layers.read("grads_h", grads_h, false);
  bool stored = false;
  for (const Tensor& of_step : h) stored |= of_step.numel() > 0;
  h = layers.read("h", h, false, !stored), results = layers.read("results", results, false);
  STD_TORCH_CHECK(wanted.size() == rows.size(), "wanted: expected ", rows.size(), " numbers, got ", wanted.size());
  Tensors of_rows, kept;
  dispatch(like.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    Plan<T> plan(layers, of_weights);
    plan.set_saved(h, results);
    const int inputs = layers.inputs();
    std::vector<bool> reached(inputs + layers.count());
    for (int k = layers.count() - 1; k >= 0; --k) {
      RowChainStep<T>& step = plan.steps[k];
      plan.result(k).grad = data_or_null<T>(grads[k]);
      step.grad_h = data_or_null<T>(grads_h[k]);
      const bool has = reached[inputs + k] || plan.result(k).grad, active = has || step.grad_h;
      kept.push_back(keep && active ? empty(like, {plan.call.num_rows, plan.result(k).width}) : layers.nothing());
      if (!active) continue;
      if (keep) step.grad_value = mutable_data<T>(kept.back());
      if (of_weights) {
        plan.need(step.source);
        step.weight_at = step.bias_at = 0;
      }
      if (step.combine == Combine::kMultiply) plan.need(step.other);
      if (step.source >= inputs || wanted[step.source]) plan.set_back_product(k);
      reached[step.source] = true;
      if (step.other >= 0) reached[step.other] = true;
    }
    std::reverse(kept.begin(), kept.end());
    for (int v = 0; v < inputs; ++v) {
      const bool asked = wanted[v] && reached[v];
      of_rows.push_back(asked ? empty(like, {plan.call.num_rows, plan.values[v].width}) : layers.nothing());
      plan.values[v].grad_in = asked ? mutable_data<T>(of_rows[v]) : nullptr;
    }
    for (const bool bias : {false, true})
      for (int k = 0; k < layers.count(); ++k) {
        const Tensor& parameter = bias ? layers.biases[k] : layers.weights[k];
        int64_t& at = bias ? plan.steps[k].bias_at : plan.steps[k].weight_at;
        at = at < 0 || !parameter.numel() ? -1 : plan.call.sums_size;
        if (at >= 0) plan.call.sums_size += parameter.numel();
      }
    const Tensors of_parameters = plan.run_with_sums(Pass::kBackward);
    of_rows.insert(of_rows.end(), of_parameters.begin(), of_parameters.end());
  });
  if (keep) of_rows.insert(of_rows.end(), kept.begin(), kept.end());
  return of_rows;
}

// tangents [inputs]: cotangents of the gradients of the inputs; grad_values [steps]: what the backward pass has kept.
// Returns the gradients of the results' cotangents, of the inputs, of the weights and of h.
Tensors row_chain_double_backward(Tensors tangents, Tensors grad_values, Tensors rows, Tensors weights, Tensors biases,
                                  Tensors h, Tensors results, Numbers numbers, bool of_weights) {
  const Layers layers = read_layers(rows, weights, biases, numbers);
  const Tensor& like = layers.rows[0];
  tangents = layers.read("tangents", tangents, true), grad_values = layers.read("grad_values", grad_values, false);
  h = layers.read("h", h, false, false), results = layers.read("results", results, false);
  Tensors of_results, of_rows, of_h;
  dispatch(like.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    Plan<T> plan(layers, of_weights);
    plan.set_saved(h, results);
    const int64_t M = plan.call.num_rows;
    const int inputs = layers.inputs();
    std::vector<bool> reached(inputs + layers.count()), moves(inputs);
    for (int v = 0; v < inputs; ++v) {
      plan.values[v].grad = data_or_null<T>(tangents[v]);
      moves[v] = plan.values[v].grad;
    }
    for (int k = 0; k < layers.count(); ++k) {
      RowChainStep<T>& step = plan.steps[k];
      const int64_t width = plan.result(k).width;
      step.grad_value = const_cast<T*>(data_or_null<T>(grad_values[k]));
      of_h.push_back(empty(like, {M, width}));
      step.grad_h_out = mutable_data<T>(of_h.back());
      of_results.push_back(layers.is_result(k) ? empty(like, {M, width}) : layers.nothing());
      if (layers.is_result(k)) plan.result(k).out = mutable_data<T>(of_results.back());
      moves.push_back(moves[step.source] || (step.other >= 0 && moves[step.other]));
      if (step.combine == Combine::kMultiply) plan.need(step.other);
      if (!moves[step.source]) continue;
      plan.set_product(k);
      if (step.combine == Combine::kMultiply) reached[step.other] = true;
      if (!of_weights || !step.grad_value) continue;
      step.weight_at = plan.call.sums_size;
      plan.call.sums_size += layers.weights[k].numel();
    }
    for (int k = layers.count() - 1; k >= 0; --k)
      if (reached[inputs + k] && plan.steps[k].other >= 0) reached[plan.steps[k].other] = true;
    for (int v = 0; v < inputs; ++v) {
      of_rows.push_back(reached[v] ? empty(like, {M, plan.values[v].width}) : layers.nothing());
      if (reached[v]) plan.values[v].grad_in = mutable_data<T>(of_rows[v]);
    }
    Tensors of_parameters = plan.run_with_sums(Pass::kDoubleBackward);
    of_rows.insert(of_rows.end(), of_parameters.begin(), of_parameters.begin() + layers.count());
  });
  of_results.insert(of_results.end(), of_rows.begin(), of_rows.end());
  of_results.insert(of_results.end(), of_h.begin(), of_h.end());
  return of_results;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(spherenet_fast, m) {
  m.def("row_chain(Tensor[] rows, Tensor[] weights, Tensor[] biases, int[] steps, bool save) -> Tensor[]");
  m.def(
      "row_chain_backward(Tensor[] grads, Tensor[] grads_h, Tensor[] rows, Tensor[] weights, Tensor[] biases, "
      "Tensor[] h, Tensor[] results, int[] steps, int[] wanted, bool of_weights, bool keep) -> Tensor[]");
  m.def(
      "row_chain_double_backward(Tensor[] tangents, Tensor[] grad_values, Tensor[] rows, Tensor[] weights, "
      "Tensor[] biases, Tensor[] h, Tensor[] results, int[] steps, bool of_weights) -> Tensor[]");
}
STABLE_TORCH_LIBRARY_IMPL(spherenet_fast, CPU, m) {
  m.impl("row_chain", TORCH_BOX(&row_chain));
  m.impl("row_chain_backward", TORCH_BOX(&row_chain_backward));
  m.impl("row_chain_double_backward", TORCH_BOX(&row_chain_double_backward));
}

}  // namespace spherenet::ops
