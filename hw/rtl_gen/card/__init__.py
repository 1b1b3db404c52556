# SPDX-License-Identifier: Apache-2.0
"""The card: every unit, behind the pins of a Vitis RTL kernel."""

from .card import Card

__all__ = ["Card"]
