"""What lies in a compiled file: its packages, and what they ask of a device."""

from __future__ import annotations

from dataclasses import dataclass

from compiler.graph import Model, parse_model
from compiler.package import Package
from compiler.package.container import packages_of


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


def packages_in(model: Model) -> dict[int, Package]:
    """Return the packages of a model by the index of their custom operator.

    Raises
    ------
    PackageError
        A package is damaged.
    """
    return {operator.index: package for operator, package in packages_of(model)}


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
    packages = tuple(packages_in(parse_model(data, name)).values())
    tokens = [package.execution.token for package in packages if package.execution.token]
    return CompiledFacts(
        on_tpu=bool(packages),
        min_runtime_version=max((package.min_runtime_version for package in packages), default=0),
        token=f"{tokens[0]:#018x}" if tokens else "",
    )
