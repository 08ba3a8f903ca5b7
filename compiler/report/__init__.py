"""What the compiler tells its user: standard output, operation log, JSON."""
