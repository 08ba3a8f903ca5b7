"""Cutting a model into segments that run one after the other on several Edge TPUs."""
