"""The judge: finds what a program leaves to luck."""

from compiler.beagle.judge.judge import Finding, Judge, Verdict
from compiler.beagle.judge.trial import Report, try_executables

__all__ = ["Finding", "Judge", "Report", "Verdict", "try_executables"]
