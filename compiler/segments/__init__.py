"""Cutting a model for several Edge TPUs."""
