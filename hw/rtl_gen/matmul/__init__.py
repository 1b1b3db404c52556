# SPDX-License-Identifier: Apache-2.0
"""The matmul engine: activation planes, sequencer, lanes, and the epilogue behind them."""

from .engine import Engine
from .epilogue import Epilogue
from .planes import Planes
from .probpath import ProbPath

__all__ = ["Engine", "Epilogue", "Planes", "ProbPath"]
