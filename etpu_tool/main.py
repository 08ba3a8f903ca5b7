"""The command ``etpu``: one module per verb."""

from __future__ import annotations

import os
import sys

import typer

from compiler.errors import EtpuError
from etpu_tool import asm, conformance, deploy, devices, disasm, doctor, inspect, order, profile, run_verb, simulate
from etpu_tool import compile as compile_verb

app = typer.Typer(
    name="etpu",
    help="Open compiler and deploy toolchain for Google Coral Edge TPUs.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command("compile")(compile_verb.compile_command)
app.command("order")(order.order_command)
app.command("inspect")(inspect.inspect_command)
app.command("disasm")(disasm.disasm_command)
app.command("asm")(asm.asm_command)
app.command("conformance")(conformance.conformance_command)
app.command("simulate")(simulate.simulate_command)
app.add_typer(devices.app, name="devices")
app.command("deploy")(deploy.deploy_command)
app.command("rollback")(deploy.rollback_command)
app.command("releases")(deploy.releases_command)
app.command("run")(run_verb.run_command)
app.command("profile")(profile.profile_command)
app.command("doctor")(doctor.doctor_command)


def run() -> None:
    """Entry point: errors become one line on standard error and an exit status."""
    try:
        app()
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
