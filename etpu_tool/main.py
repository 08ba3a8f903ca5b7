"""The command ``etpu``: one module per verb."""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING

from compiler.errors import EtpuError
from etpu_tool.garbage import little_collection

if TYPE_CHECKING:
    import typer

_MODULES = {
    "compile": "compile", "order": "order", "inspect": "inspect", "disasm": "disasm", "asm": "asm",
    "conformance": "conformance", "simulate": "simulate", "devices": "devices", "deploy": "deploy", "rollback": "deploy",
    "releases": "deploy", "run": "run_verb", "profile": "profile", "doctor": "doctor",
}
"""Verb -> module with its ``VERB_command``, or with an ``app`` of several."""


def command_line(verb: str = "") -> typer.Typer:
    """Return the command line with one verb, or with all if there is no such verb: describing a verb takes time."""
    import typer

    app = typer.Typer(
        name="etpu",
        help="Open compiler and deploy toolchain for Google Coral Edge TPUs.",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    app.callback()(lambda: None)  # verbs are named even where there is but one
    for name in [verb] if verb in _MODULES else _MODULES:
        module = importlib.import_module(f"etpu_tool.{_MODULES[name]}")
        if hasattr(module, "app"):
            app.add_typer(module.app, name=name)
        elif hasattr(module, "parser"):
            # Has its own; here it is only to be seen in the list.
            app.command(name, add_help_option=False)(getattr(module, f"{name}_command"))
        else:
            app.command(name)(getattr(module, f"{name}_command"))
    return app


@little_collection()
def run() -> None:
    """Entry point: errors become one line on standard error and an exit status."""
    try:
        if sys.argv[1:2] == ["compile"]:
            from etpu_tool.compile import compile_command

            compile_command(sys.argv[2:])  # without typer, which takes its time
        else:
            command_line(*sys.argv[1:2])()
    except EtpuError as error:
        fail(error)
    except BrokenPipeError:
        # The reader of our output has gone; there is nobody to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def fail(error: EtpuError) -> None:
    """Print an error and exit with its status."""
    print(f"error: {error.message}", file=sys.stderr)
    if error.advice:
        print(f"       {error.advice}", file=sys.stderr)
    sys.exit(error.exit_status)
