# SPDX-License-Identifier: Apache-2.0
"""The order of products: list scheduling of one engine whose results come some time later.

R. L. Graham, "Bounds on Multiprocessing Timing Anomalies", SIAM J. Appl. Math. 17 (1969): whenever
the engine is free, it takes the first product in the list that is ready.
"""

import dataclasses
from collections.abc import Hashable, Iterator, Sequence


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """A product.

    Attributes
    ----------
    name : hashable
    cycles : int
        For which the engine is busy, or memory if that takes longer.
    after : sequence of (name, cycles)
        Products that come before, and the cycles from the end of each to the start of this one.
    """

    name: Hashable
    cycles: int
    after: Sequence[tuple[Hashable, int]] = ()


def schedule(tasks: Sequence[Task]) -> Iterator[Task]:
    """The tasks in an order that keeps the engine busy; earlier ones are preferred.

    >>> [task.name for task in schedule([
    ...     Task(name="values", cycles=8, after=[("scores", 100)]), Task(name="scores", cycles=8),
    ...     Task(name="weights", cycles=96), Task(name="more weights", cycles=96)])]
    ['scores', 'weights', 'more weights', 'values']
    """
    left, now = list(tasks), 0
    ends: dict[Hashable, int] = {}
    while left:
        begins = {task.name: max((ends[name] + wait for name, wait in task.after), default=0)
                  for task in left if all(name in ends for name, _ in task.after)}
        if not begins:
            raise ValueError("tasks must not wait for each other in a circle")
        ready = [task for task in left if begins.get(task.name, now + 1) <= now]
        task = ready[0] if ready else min(
            (task for task in left if task.name in begins), key=lambda task: begins[task.name])
        now = max(now, begins[task.name]) + task.cycles
        ends[task.name] = now
        left.remove(task)
        yield task
