"""Packages that are put together for tests of the runtime's rules; their programs do nothing."""

from __future__ import annotations

import numpy as np

from compiler.facts import CUSTOM_OPERATOR
from compiler.graph import Operator, serialize_model
from compiler.graph.build import GraphBuilder
from compiler.package import (
    CustomOptions,
    DataType,
    Executable,
    ExecutableType,
    InstructionChunk,
    Layer,
    Package,
    write_custom_options,
    write_package,
)


def make_package(name: str, size: int, token: int, version: int) -> Package:
    """A package with a parameter cache; takes `name`, gives `name`_out, `size` values of int8 each."""

    def layer(title: str, *, is_output: bool) -> Layer:
        return Layer(title, -(-size // 8) * 8, 1, 1, size, 0, 0.1, DataType.SIGNED_FIXED_POINT8, is_output)

    chunk = (InstructionChunk(bytes(32)),)
    execution = Executable(
        ExecutableType.EXECUTION_ONLY,
        name,
        chunk,
        inputs=(layer(name, is_output=False),),
        outputs=(layer(f"{name}_out", is_output=True),),
        token=token,
    )
    caching = Executable(ExecutableType.PARAMETER_CACHING, f"{name}_cache", chunk, bytes(64), token=token)
    return Package((execution, caching), version)


def compiled_model(size: int = 16, token: int = 7, version: int = 12) -> bytes:
    """CPU layer, Edge TPU operator, CPU layer."""
    rng = np.random.default_rng(3)
    builder = GraphBuilder()
    x = builder.add_input((1, size), scale=0.1)
    weights = builder.quantized_weights(rng.normal(size=(size, size)))
    between = builder.fully_connected(x, weights, scale=0.1)
    name = builder.tensors[between].name
    result = builder.tensor((1, size), scale=0.1, name=f"{name}_out")
    options = write_custom_options(CustomOptions(write_package(make_package(name, size, token, version))))
    builder.operators.append(
        Operator(
            len(builder.operators),
            "CUSTOM",
            (between,),
            (result,),
            custom_name=CUSTOM_OPERATOR,
            custom_options=np.frombuffer(options, np.uint8),
            code=32,
        )
    )
    y = builder.fully_connected(result, weights, scale=0.1)
    return serialize_model(builder.build([y, between]))
