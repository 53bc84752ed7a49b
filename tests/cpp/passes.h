// Compares the passes of a kernel with each other, with central differences, and float with double.
#pragma once
#include <cmath>
#include <cstdio>
#include <limits>
#include <string>
#include <vector>

#include "../../csrc/kernels.h"
#include "registered.h"

namespace spherenet::test {

inline std::string context;  // what is being tried, for messages

inline void check(bool ok, const std::string& what) {
  if (ok) return;
  ++failures;
  std::fprintf(stderr, "%s: %s\n", context.c_str(), what.c_str());
}

template <class A, class B>
double dot(const std::vector<A>& a, const std::vector<B>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += double(a[i]) * double(b[i]);
  return sum;
}

template <class A, class B>
void check_close(const std::vector<A>& found, const std::vector<B>& expected, double tolerance, const char* what) {
  double error = 0, size = 0;
  bool finite = found.size() == expected.size();
  for (size_t i = 0; finite && i < found.size(); ++i) {
    finite = std::isfinite(double(found[i]));
    error += std::pow(double(found[i]) - double(expected[i]), 2);
    size += std::pow(double(expected[i]), 2);
  }
  check(finite, std::string(what) + ": a number is not finite, or was not written");
  // relative to all numbers together, absolute where they are small
  check(!finite || std::sqrt(error) <= tolerance * (std::sqrt(size) + 1),
        std::string(what) + ": off by " + std::to_string(std::sqrt(error)) + " of " + std::to_string(std::sqrt(size)));
}

// Arrays of one kernel in a fixed order.
template <class T>
using Arrays = std::vector<std::vector<T>>;

template <class T, class U>
Arrays<T> converted(const Arrays<U>& arrays) {
  Arrays<T> out;
  for (const auto& array : arrays) out.emplace_back(array.begin(), array.end());
  return out;
}

template <class T>
Arrays<T> moved(const Arrays<T>& arrays, const Arrays<T>& direction, double step) {
  Arrays<T> out = arrays;
  for (size_t k = 0; k < out.size(); ++k)
    for (size_t i = 0; i < out[k].size(); ++i) out[k][i] += T(step * direction[k][i]);
  return out;
}

inline Arrays<double> like(const Arrays<double>& arrays, Random& random) {
  Arrays<double> out;
  for (const auto& array : arrays) out.push_back(random.numbers<double>(int64_t(array.size())));
  return out;
}

// float: 6e-8, a few digits less after sums and divisions by small numbers.
constexpr double kSingle = 1e-4;

// What all three passes of a kernel return. values: its outputs, or their tangents; grads: gradients of its inputs.
template <class T>
struct Result {
  Arrays<T> values, grads;
};

// A kernel as f(pass, inputs, cotangents, tangents), for arrays of double and of float; what a pass does not take is
// empty.
//   backward:         grads  = vjp(inputs, cotangents)
//   double backward:  values = derivative of the outputs along the tangents, grads = derivative of vjp along them
template <class Kernel>
void check_passes(const Kernel& kernel, const Arrays<double>& inputs, Random& random) {
  const Arrays<double> none;
  const Result<double> forward = kernel(Pass::kForward, inputs, none, none);
  const Arrays<double> cotangents = like(forward.values, random), tangents = like(inputs, random);
  const Result<double> backward = kernel(Pass::kBackward, inputs, cotangents, none);
  const Result<double> second = kernel(Pass::kDoubleBackward, inputs, cotangents, tangents);

  // <cotangents, derivative of f along tangents> = <vjp(cotangents), tangents>, up to rounding
  double left = 0, right = 0, size = 1;
  for (size_t k = 0; k < cotangents.size(); ++k) left += dot(cotangents[k], second.values[k]);
  for (size_t k = 0; k < tangents.size(); ++k) right += dot(backward.grads[k], tangents[k]);
  for (const auto& grad : backward.grads) size += std::sqrt(dot(grad, grad));
  check(std::fabs(left - right) <= 1e-11 * size, "backward and double backward disagree");

  // Central differences: an error of 1e-10 times third derivatives, and 1e-16 / 1e-5 from rounding.
  constexpr double kStep = 1e-5, kTolerance = 1e-6;
  const Arrays<double> above = moved(inputs, tangents, kStep), below = moved(inputs, tangents, -kStep);
  const auto difference = [&](Arrays<double> high, const Arrays<double>& low) {
    for (size_t k = 0; k < high.size(); ++k)
      for (size_t i = 0; i < high[k].size(); ++i) high[k][i] = (high[k][i] - low[k][i]) / (2 * kStep);
    return high;
  };
  const Arrays<double> slopes =
      difference(kernel(Pass::kForward, above, none, none).values, kernel(Pass::kForward, below, none, none).values);
  const Arrays<double> curvatures = difference(kernel(Pass::kBackward, above, cotangents, none).grads,
                                               kernel(Pass::kBackward, below, cotangents, none).grads);
  for (size_t k = 0; k < slopes.size(); ++k) check_close(second.values[k], slopes[k], kTolerance, "first derivative");
  for (size_t k = 0; k < curvatures.size(); ++k)
    check_close(second.grads[k], curvatures[k], kTolerance, "second derivative");

  const auto inputs_ = converted<float>(inputs), cotangents_ = converted<float>(cotangents);
  const auto tangents_ = converted<float>(tangents), none_ = converted<float>(none);
  const Result<float> single[] = {kernel(Pass::kForward, inputs_, none_, none_),
                                  kernel(Pass::kBackward, inputs_, cotangents_, none_),
                                  kernel(Pass::kDoubleBackward, inputs_, cotangents_, tangents_)};
  const Result<double>* exact[] = {&forward, &backward, &second};
  for (int pass = 0; pass < 3; ++pass) {
    for (size_t k = 0; k < single[pass].values.size(); ++k)
      check_close(single[pass].values[k], exact[pass]->values[k], kSingle, "values in float");
    for (size_t k = 0; k < single[pass].grads.size(); ++k)
      check_close(single[pass].grads[k], exact[pass]->grads[k], kSingle, "gradients in float");
  }
}

}  // namespace spherenet::test
