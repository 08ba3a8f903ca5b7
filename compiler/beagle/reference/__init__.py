"""The chip's arithmetic on a source graph: what official executables are compared with.

Written from the definitions of the operators; it knows nothing of instruction streams. All values
are exact integers until the output stage: a float32 multiplier, a clamp before the rounding, half to
even, the zero point. int8 and uint8 differ by nothing but their zero points.
"""

from compiler.beagle.reference.evaluate import RULES, evaluate, needed
from compiler.beagle.reference.step import Generation, NoReferenceError

__all__ = ["RULES", "Generation", "NoReferenceError", "evaluate", "needed"]
