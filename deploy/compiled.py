"""What a compiled file asks of a device, read from the file itself."""

from __future__ import annotations

from dataclasses import dataclass

from compiler.facts import CUSTOM_OPERATOR
from compiler.graph import parse_model


@dataclass(frozen=True)
class CompiledFacts:
    """What a compiled file asks of a device.

    Attributes
    ----------
    on_tpu:
        Whether it has operators for the Edge TPU.
    min_runtime_version:
        Edge TPU runtime that it needs; 0 without such operators.
    token:
        Caching token, hexadecimal; empty when it caches nothing.
    """

    on_tpu: bool
    min_runtime_version: int
    token: str


def facts_of(data: bytes, name: str) -> CompiledFacts:
    """Read the facts off a compiled .tflite file.

    Parameters
    ----------
    name:
        Name of the file for messages.

    Raises
    ------
    InvalidModelError, PackageError
        The file is no model, or its package is damaged.
    """
    model = parse_model(data, name)
    packages = ()
    if any(op.custom_name == CUSTOM_OPERATOR for op in model.main.operators):
        from compiler.package import packages_of

        packages = tuple(packages_of(model).values())
    tokens = [package.execution.token for package in packages if package.execution.token]
    return CompiledFacts(
        on_tpu=bool(packages),
        min_runtime_version=max((package.min_runtime_version for package in packages), default=0),
        token=f"{tokens[0]:#018x}" if tokens else "",
    )
