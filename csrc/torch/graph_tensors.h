// The graph as the operators take it, checked before a kernel indexes with it.
#pragma once
#include "box.h"

namespace spherenet::ops {

// A group of arguments, see box.h.
struct GraphTensors {
  Tensor in_ptr, out_ptr, out_edge, rev, triplet_ptr;

  template <class F>
  void fields(const F& f) {
    f(in_ptr, out_ptr, out_edge, rev, triplet_ptr);
  }
};
#define SN_GRAPH_SCHEMA "Tensor in_ptr, Tensor out_ptr, Tensor out_edge, Tensor rev, Tensor triplet_ptr"

// A graph whose arrays, contiguous ones, have passed the checks: a bad one is an error, not a crash.
struct CheckedGraph {
  TileGraph tiles;
  std::optional<int64_t> num_edges, num_triplets;  // the ends of in_ptr and triplet_ptr, where values are read

  CheckedGraph(const Checks& check, const GraphTensors& tensors, int64_t rows)
      : tiles{tensors.in_ptr.numel() - 1,      data<int64_t>(tensors.in_ptr), data<int64_t>(tensors.out_ptr),
              data<int64_t>(tensors.out_edge), data<int64_t>(tensors.rev),    data<int64_t>(tensors.triplet_ptr)} {
    const int64_t N = tiles.num_nodes;
    STD_TORCH_CHECK(N >= 0, "in_ptr: expected at least one offset, got shape ", shape_of(tensors.in_ptr));
    check("in_ptr", tensors.in_ptr, ScalarType::Long, {N + 1});
    check("out_ptr", tensors.out_ptr, ScalarType::Long, {N + 1});
    check("out_edge", tensors.out_edge, ScalarType::Long, {rows});
    check("rev", tensors.rev, ScalarType::Long, {rows});
    check("triplet_ptr", tensors.triplet_ptr, ScalarType::Long, {N + 1});
    if (check.read_values()) check_values(tensors, rows);
    if (check.compare_values()) check_ends(tensors);
  }

  // Arrays over triplets may be longer than triplet_ptr says; what is past its end means nothing.
  void check_num_triplets(const char* name, int64_t given) const {
    STD_TORCH_CHECK(given >= num_triplets.value_or(0), name, ": expected at least ", num_triplets.value_or(0),
                    ", the end of triplet_ptr, got ", given);
  }

 private:
  void check_values(const GraphTensors& tensors, int64_t rows) {
    const int64_t N = tiles.num_nodes;
    const IndexValues<> in_ptr(tensors.in_ptr), out_ptr(tensors.out_ptr), triplet_ptr(tensors.triplet_ptr);
    check_pointers("in_ptr", in_ptr, rows);
    check_pointers("out_ptr", out_ptr, rows);
    const int64_t E = in_ptr[N];
    STD_TORCH_CHECK(out_ptr[N] == E, "out_ptr: expected ", E, " at its end as in in_ptr, got ", out_ptr[N]);
    check_permutation("out_edge", IndexValues<>(tensors.out_edge), E);
    check_range("rev", IndexValues<>(tensors.rev), -1, rows);
    int64_t triplets = 0;
    for (int64_t j = 0; j <= N; ++j) {
      STD_TORCH_CHECK(triplet_ptr[j] == triplets, "triplet_ptr: expected ", triplets, " at atom ", j, ", got ",
                      triplet_ptr[j]);
      if (j < N) triplets += (in_ptr[j + 1] - in_ptr[j]) * (out_ptr[j + 1] - out_ptr[j]);
    }
    num_edges = E;
    num_triplets = triplets;
  }

  // Whether out_edge is in order and rev[e] joins the atoms of e the other way round. All values are in range.
  void check_ends(const GraphTensors& tensors) const {
    const int64_t N = tiles.num_nodes, E = *num_edges;
    const IndexValues<> in_ptr(tensors.in_ptr), out_ptr(tensors.out_ptr), out_edge(tensors.out_edge), rev(tensors.rev);
    std::vector<int64_t> sender(E), receiver(E);
    for (int64_t j = 0; j < N; ++j) {
      for (int64_t e = in_ptr[j]; e < in_ptr[j + 1]; ++e) receiver[e] = j;
      for (int64_t k = out_ptr[j]; k < out_ptr[j + 1]; ++k) {
        sender[out_edge[k]] = j;
        const int64_t before = k == out_ptr[j] ? -1 : out_edge[k - 1];
        STD_TORCH_CHECK(before < out_edge[k], "out_edge: expected ascending edges out of atom ", j, ", got ",
                        out_edge[k], " after ", before);
      }
    }
    for (int64_t e = 0; e < E; ++e) {
      const int64_t r = rev[e];
      const bool opposite = r < E && (r < 0 || (sender[r] == receiver[e] && receiver[r] == sender[e] && rev[r] == e));
      STD_TORCH_CHECK(opposite, "rev: expected the edge from ", receiver[e], " to ", sender[e], " for edge ", e,
                      ", got ", r);
    }
  }
};

}  // namespace spherenet::ops
