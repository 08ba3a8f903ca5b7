"""On-chip parameter memory: what is cached, where, for one model and for co-compiled models."""
