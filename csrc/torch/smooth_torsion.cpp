// smooth_torsion: re and im of every triplet, blended from all neighbors. Derivatives are registered in Python.
#include "../math/smooth_torsion.h"

#include <algorithm>

#include "graph_tensors.h"
#include "stream.h"

namespace spherenet::ops {
namespace {

struct SmoothTorsionArguments {
  Tensor direction, fade;
  GraphTensors graph;
  int64_t num_triplets;
  bool even;

  template <class F>
  void fields(const F& f) {
    f(direction, fade, graph, num_triplets, even);
  }
};

struct CheckedSmoothTorsion {
  Tensor direction, fade;
  GraphTensors tensors;
  int64_t num_triplets;
  bool even;
  Checks check;
  ScalarType dtype;
  CheckedGraph graph;

  explicit CheckedSmoothTorsion(const SmoothTorsionArguments& given)
      : direction(dense(given.direction)),
        fade(dense(given.fade)),
        tensors(dense_fields(given.graph)),
        num_triplets(given.num_triplets),
        even(given.even),
        check("direction", direction),
        dtype(floating_dtype("direction", direction)),
        graph(check, tensors, (check("direction", direction, dtype, {-1, 3}), direction.size(0))) {
    check("fade", fade, dtype, {direction.size(0)});
    graph.check_num_triplets("num_triplets", num_triplets);
  }

  template <class T>
  SmoothTorsionCall<T> call() const {
    SmoothTorsionCall<T> out{};
    out.graph = graph.tiles;
    out.num_triplets = num_triplets;
    out.even = even;
    out.direction = data<T>(direction);
    out.fade = data<T>(fade);
    return out;
  }
};

template <class T>
void run(const CheckedSmoothTorsion& in, const SmoothTorsionCall<T>& call, Pass pass) {
  run_where(
      in.direction,
      [&] {
        torch::stable::parallel_for(0, in.graph.tiles.num_nodes, 16, [&](int64_t begin, int64_t end) {
          spherenet::smooth_torsion(call, pass, begin, end);
        });
        // What belongs to no tile: rows past the last edge, columns past the last triplet.
        const int64_t rows = in.direction.size(0), edges = *in.graph.num_edges, triplets = *in.graph.num_triplets;
        if (call.grad_direction_in) {
          std::fill(call.grad_direction_in + 3 * edges, call.grad_direction_in + 3 * rows, T(0));
          std::fill(call.grad_fade + edges, call.grad_fade + rows, T(0));
          std::fill(call.grad_direction_out + 3 * edges, call.grad_direction_out + 4 * rows, T(0));
        }
        for (int k = 0; call.torsion && k < 2; ++k)
          std::fill(call.torsion + k * in.num_triplets + triplets, call.torsion + (k + 1) * in.num_triplets, T(0));
      },
      [&](auto stream) { cuda::smooth_torsion(call, in.direction.size(0), pass, stream); });
}

Tensor smooth_torsion(const SmoothTorsionArguments& given) {
  const CheckedSmoothTorsion in(given);
  Tensor torsion = empty(in.direction, {2, in.num_triplets});
  dispatch(in.dtype, [&](auto zero) {
    using T = decltype(zero);
    auto call = in.call<T>();
    call.torsion = mutable_data<T>(torsion);
    run(in, call, Pass::kForward);
  });
  return torsion;
}

// The tangent of the torsion (empty unless tangents are given), and the gradients of direction and fade.
std::tuple<Tensor, Tensor, Tensor> smooth_torsion_vjp(const CheckedSmoothTorsion& in, const Tensor& grad_torsion_,
                                                      const OptionalTensor& direction_tangent,
                                                      const OptionalTensor& fade_tangent, Pass pass) {
  const Tensor grad_torsion = dense(grad_torsion_);
  in.check("grad_torsion", grad_torsion, in.dtype, {2, in.num_triplets});
  const int64_t E = in.direction.size(0);
  Tensor torsion = empty(in.direction, {pass == Pass::kBackward ? 0 : 2, in.num_triplets});
  Tensor grad_direction = empty(in.direction, {E, 3}), grad_fade = empty(in.direction, {E});
  dispatch(in.dtype, [&](auto zero) {
    using T = decltype(zero);
    const bool on_gpu = takes_cuda_kernels(in.direction);
    const int64_t parts = on_gpu ? cuda::tile_parts(in.graph.tiles.num_nodes) : 1;
    const Tensor sums = empty(in.direction, {parts + 1, 4 * E});  // direction and fade as neighbor, then as axis
    const Tensor scratch = empty(in.direction, {on_gpu ? parts * E : 0, 8});
    auto call = in.call<T>();
    call.direction_tangent = data<T>(direction_tangent);
    call.fade_tangent = data<T>(fade_tangent);
    call.grad_torsion = data<T>(grad_torsion);
    call.torsion = pass == Pass::kBackward ? nullptr : mutable_data<T>(torsion);
    call.grad_direction_in = mutable_data<T>(sums);
    call.grad_fade = call.grad_direction_in + 3 * E;
    call.grad_direction_out = call.grad_direction_in + parts * 4 * E;
    call.scratch = mutable_data<T>(scratch);
    run(in, call, pass);
    sum_chunks<T>(sums, {grad_direction, grad_fade});
  });
  return {torsion, grad_direction, grad_fade};
}

std::tuple<Tensor, Tensor> smooth_torsion_backward(const Tensor& grad_torsion, const SmoothTorsionArguments& given) {
  const CheckedSmoothTorsion in(given);
  auto [none, grad_direction, grad_fade] = smooth_torsion_vjp(in, grad_torsion, {}, {}, Pass::kBackward);
  return {grad_direction, grad_fade};
}

std::tuple<Tensor, Tensor, Tensor> smooth_torsion_double_backward(const OptionalTensor& grad_grad_direction,
                                                                  const OptionalTensor& grad_grad_fade,
                                                                  const Tensor& grad_torsion,
                                                                  const SmoothTorsionArguments& given) {
  const CheckedSmoothTorsion in(given);
  const OptionalTensor of_direction = dense(grad_grad_direction), of_fade = dense(grad_grad_fade);
  if (of_direction) in.check("grad_grad_direction", *of_direction, in.dtype, {in.direction.size(0), 3});
  if (of_fade) in.check("grad_grad_fade", *of_fade, in.dtype, {in.direction.size(0)});
  return smooth_torsion_vjp(in, grad_torsion, of_direction, of_fade, Pass::kDoubleBackward);
}

void implement(torch::stable::detail::StableLibrary& m) {
  m.impl("smooth_torsion", SN_BOX(smooth_torsion));
  m.impl("smooth_torsion_backward", SN_BOX(smooth_torsion_backward));
  m.impl("smooth_torsion_double_backward", SN_BOX(smooth_torsion_double_backward));
}

}  // namespace

#define SN_SMOOTH_TORSION_SCHEMA "Tensor direction, Tensor fade, " SN_GRAPH_SCHEMA ", SymInt num_triplets, bool even"

STABLE_TORCH_LIBRARY_FRAGMENT(spherenet_fast, m) {
  m.def("smooth_torsion(" SN_SMOOTH_TORSION_SCHEMA ") -> Tensor");
  m.def("smooth_torsion_backward(Tensor grad_torsion, " SN_SMOOTH_TORSION_SCHEMA
        ") -> (Tensor grad_direction, Tensor grad_fade)");
  m.def(
      "smooth_torsion_double_backward(Tensor? grad_grad_direction, Tensor? grad_grad_fade, Tensor "
      "grad_torsion, " SN_SMOOTH_TORSION_SCHEMA
      ") -> (Tensor grad_grad_torsion, Tensor grad_direction, Tensor grad_fade)");
}
SN_IMPLEMENT(implement)

}  // namespace spherenet::ops
