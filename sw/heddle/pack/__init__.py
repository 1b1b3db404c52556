# SPDX-License-Identifier: Apache-2.0
"""Packing: weights as they lie in a card's memory."""
