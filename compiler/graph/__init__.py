"""Read and write TensorFlow Lite files; the immutable graph that passes work on."""

from compiler.graph.model import Graph, Model, Operator, Quantization, Signature, Tensor, TensorType
from compiler.graph.reader import parse_model, read_model
from compiler.graph.writer import serialize_model, write_file, write_model

__all__ = [
    "Graph",
    "Model",
    "Operator",
    "Quantization",
    "Signature",
    "Tensor",
    "TensorType",
    "parse_model",
    "read_model",
    "serialize_model",
    "write_file",
    "write_model",
]
