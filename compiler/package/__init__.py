"""The executable container inside the custom operator: read and write."""
