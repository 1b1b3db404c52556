# SPDX-License-Identifier: Apache-2.0
"""What is known to be complete when an instruction starts.

Knowledge is one number per stage: every instruction up to that one (counted as executed) has done
what it does in the stage.  It spreads through dependency counters, through the order of each queue
and through dispatch.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from .effects import Access, Cells, Stage
from .trace import Step

#: One number per stage, -1 for nothing.
Known = npt.NDArray[np.int64]
_MATMUL = (Stage.ENGINE, Stage.EPILOGUE, Stage.SOFTMAX)


def nothing() -> Known:
    """Before the first instruction."""
    return np.full(len(Stage), -1, np.int64)


class Order:
    """Follows a trace: who knows what, and who touched which cell last."""

    def __init__(self, cells: Cells) -> None:
        self.cells = cells
        self._touched = {kind: np.full((len(Stage), cells.count), -1, np.int64)
                         for kind in ("read", "written")}
        self._queue: dict[int, Known] = {}
        self._dispatch = nothing()
        #: By instruction: what is known when it is complete.
        self.after: list[Known] = []

    def before(self, step: Step) -> Known:
        """What the next instruction knows when it starts, its own waits not counted."""
        return np.maximum(self._dispatch, self._queue.get(step.queue, self._dispatch))

    def conflicts(self, step: Step, known: Known, *, owns: bool = False
                  ) -> Iterator[tuple[Stage, int, Access]]:
        """(stage, instruction, access) of the latest accesses that must be complete and are not
        known to be.

        ``known`` is looked at anew for every access, so that it may grow meanwhile.  With ``owns``
        what the instruction reads must not be read by another either.
        """
        for access in self.cells.accesses(step):
            for kind in ("read", "written") if access.write or owns else ("written",):
                latest = self._touched[kind][:, access.cells]
                # From the last stage of matmuls down: its end says most.  The vector unit's comes
                # before those of messages, some of which it has awaited.
                for stage in reversed(Stage):
                    if self._in_order(stage, access.stage) or not latest.shape[1]:
                        continue
                    found = int(latest[stage].max())
                    if found > known[stage]:
                        yield stage, found, access

    @staticmethod
    def _in_order(earlier: Stage, later: Stage) -> bool:
        """Whether an earlier instruction in one stage precedes a later one in the other anyway."""
        if earlier in _MATMUL and later in _MATMUL:
            return earlier <= later
        return earlier == later

    def add(self, step: Step, known: Known) -> None:
        """The next instruction starts, knowing ``known``."""
        number, done = len(self.after), self.cells.completes(step)
        for access in self.cells.accesses(step):
            kind = "written" if access.write else "read"
            self._touched[kind][access.stage, access.cells] = number
        after = known.copy()
        # The end of a matmul's last stage is behind the stages before it.
        for stage in _MATMUL if done in _MATMUL else (done,):
            if stage <= done:
                after[stage] = number
        self.after.append(after)
        if done == Stage.CONTROL:
            self._dispatch = np.maximum(self._dispatch, after)
        else:
            self._queue[step.queue] = known
