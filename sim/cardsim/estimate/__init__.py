# SPDX-License-Identifier: Apache-2.0
"""The cycle estimator: what a workload costs on a card, from its program and the units' pages."""

from .card import EstimatedCard
from .estimate import estimate

__all__ = ["EstimatedCard", "estimate"]
