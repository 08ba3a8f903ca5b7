"""The judge: finds what a program leaves to luck."""

from compiler.beagle.judge.judge import Finding, Judge, Verdict

__all__ = ["Finding", "Judge", "Verdict"]
