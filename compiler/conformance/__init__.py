"""Our knowledge and our compiler held against officially compiled models."""

from compiler.conformance.runner import CHECKS, ModelReport, find_pairs, run_all, summarize

__all__ = ["CHECKS", "ModelReport", "find_pairs", "run_all", "summarize"]
