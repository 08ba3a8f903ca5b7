"""``etpu doctor``: what is wrong with a device?"""

from __future__ import annotations

import sys

from etpu_tool.deploy import Device, Timeout


def doctor_command(device: Device, timeout: Timeout = 10.0) -> None:
    """Examine a device and say what to do about each problem."""
    from deploy.doctor import Verdict, examine
    from deploy.inventory import Inventory

    checks = examine(Inventory().get(device), timeout=timeout)
    for check in checks:
        print(f"{check.verdict.value:<8} {check.name}: {check.detail}")
        if check.advice:
            print(f"         {check.advice}")
    if any(check.verdict is Verdict.FAILED for check in checks):
        sys.exit(1)
