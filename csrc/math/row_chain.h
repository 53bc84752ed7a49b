// A chain of layers that treat every row alone, from its first input to its last result in one pass over memory. For
// the CPU alone: elsewhere it is the layers one after the other.
//
// Its values are numbered: the inputs first, then the result of every step, in order:
//
//   h = source W^T + bias,   value = act(h), act(h) + other or act(h) * other,   act: silu or nothing
//
// The backward pass takes cotangents of the results and of h (those are what a double backward finds for it), keeps the
// cotangents of all values for the double backward, and sums the gradients of weights and biases part by part: a part
// is a range of rows that depends on nothing but their number, so that the bits do not depend on the number of threads.
#pragma once
#include "product.h"

namespace spherenet {

enum class Combine { kNone, kAdd, kMultiply };

// M rows. Pointers are null where there is nothing or nothing is wanted.
template <class T>
struct RowChainStep {
  int source, other;            // numbers of values; other is -1 without one
  Combine combine;              // how act(h) meets other
  bool silu;                    // what act is
  ProductCall<T> product;       // source -> h, a weight [width, width of source]; x and out are set for every tile
  ProductCall<T> back_product;  // cotangent of h -> cotangent of source
  T* h;                         // [M, width] written by the forward pass, read by the others; null: not stored,
                                // and the backward pass finds it again, with `product`
  const T* grad_h;              // [M, width] its cotangent
  T* grad_value;                // [M, width] written by the backward pass, read by the double backward
  T* grad_h_out;                // [M, width] the double backward's gradient for h
  int64_t weight_at, bias_at;   // where a part's sums have the gradients; -1: not wanted
};

template <class T>
struct RowChainValue {
  int64_t width;
  const T* known;  // [M, width] an input, or a result that the backward passes need not compute again
  T* out;          // [M, width] forward: the result; double backward: the gradient for the result's cotangent
  const T* grad;   // [M, width] cotangent of a result; double backward: tangent of an input
  T* grad_in;      // [M, width] gradient for an input
  bool needed;     // by the backward pass, as a number: a source whose weight wants a gradient, or a factor
};

template <class T>
struct RowChainCall {
  int64_t num_rows, part_rows, tile_rows;
  int num_inputs, num_steps;
  const RowChainStep<T>* steps;    // [num_steps]
  const RowChainValue<T>* values;  // [num_inputs + num_steps]
  T* sums;                         // [parts, sums_size] gradients of weights [width, width of source] and biases
  int64_t sums_size;
};
// Over the parts begin .. end.
template <class T>
void row_chain(const RowChainCall<T>& call, Pass pass, int64_t begin, int64_t end);

}  // namespace spherenet
