# SPDX-License-Identifier: Apache-2.0
"""Sampling on the card: argmax, top-k, log-sum-exp and target logit over blocks of logits."""

from .candidates import Candidates
from .logsum import LogSumExp
from .sampler import Sampler

__all__ = ["Candidates", "LogSumExp", "Sampler"]
