"""May this operator run on the Edge TPU? Constraint functions, status text, partition."""

from compiler.mapping.mapper import MappedGraph, MappingOptions, Subgraph, check_model, map_graph, official_verdict
from compiler.mapping.status import MAPPED, Status, Verdict

__all__ = [
    "MAPPED",
    "MappedGraph",
    "MappingOptions",
    "Status",
    "Subgraph",
    "Verdict",
    "check_model",
    "map_graph",
    "official_verdict",
]
