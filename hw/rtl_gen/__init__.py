"""Generators of the accelerator card."""
