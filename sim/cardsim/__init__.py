"""Simulated cards."""
