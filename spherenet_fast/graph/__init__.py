"""Graphs: the search for neighbors, periodic or not, given edges, padding, and the checks of all of them."""

from typing import TYPE_CHECKING

from .._lazy import lazy_names

if TYPE_CHECKING:
    from .graph import Graph, build_graph, edge_vectors
    from .radius import radius_graph

__all__ = ["Graph", "build_graph", "edge_vectors", "radius_graph"]
__getattr__, __dir__ = lazy_names(
    __name__, {"Graph": "graph", "build_graph": "graph", "edge_vectors": "graph", "radius_graph": "radius"}
)
