"""May this operator run on the Edge TPU? Constraint functions, status text, partition."""
