# SPDX-License-Identifier: Apache-2.0
"""The events of a Verilated card: they add up to what the card itself counts."""

import numpy as np
import pytest

import heddle
from cardsim.rtl import Timing
from cardsim.rtl.events import Activity
from tests.sw import models

pytestmark = [pytest.mark.cosim, pytest.mark.xdist_group("card tiny")]


@pytest.fixture(scope="module", params=[0, 300], ids=["smooth", "stalls"])
def run(request, tmp_path_factory):
    """(log, counters) of three decode steps of a small model."""
    found = models.tensors(layers=2, width=128, inner=192, vocabulary=300, context=40, head=False,
                           seed="events")
    folder = models.write(tmp_path_factory.mktemp("events"), found)
    with heddle.load(folder, cards="rtl:tiny", pattern="2:4", events=True,
                     timing=Timing(stall_permille=request.param)) as model:
        runtime = model.runtime
        runtime.card.events()
        runtime.run([5, 6, 7], 0, 3)
        return runtime.card.events(), runtime.totals.counters


def test_the_log_adds_up_to_the_counters(run):
    log, counters = run
    counted = log[:-1][log["running"][1:] == 1]
    idle = (counted["entries"] == 0) & (counted["wait_weights"] == 0)
    blocked = idle & (counted["wait_rows"] == 1)
    free = idle & ~blocked
    reports = sum((counted["done"] >> k & 1).sum() for k in range(5)) + counted["control"].sum()
    assert {
        "cycles": len(counted), "read_beats": counted["read_beats"].sum(),
        "write_beats": counted["write_beats"].sum(), "engine_beats": counted["entries"].sum(),
        "engine_cycles": (counted["entries"] != 0).sum(),
        "stall_weights": ((counted["entries"] == 0) & (counted["wait_weights"] == 1)).sum(),
        "stall_epilogue": blocked.sum(), "stall_dependency": (free & (counted["held"] == 1)).sum(),
        "stall_idle": (free & (counted["empty"] == 1)).sum(), "instructions": reports,
        "stall_link": 0, "idle_link": 0} == counters
    assert all(counters[name] for name in ("stall_weights", "stall_dependency", "stall_idle"))


def test_every_instruction_is_issued_taken_and_reported(run):
    log, _ = run
    issued = log["pc"][log["issue"] == 1]
    assert len(issued) == sum((log["taken"] >> k & 1).sum() for k in range(3))
    assert len(issued) == sum((log["done"] >> k & 1).sum() for k in range(5))
    products = (log["taken"] >> 1 & 1).sum()
    assert products == log["last"].sum() > 0
    # What goes through the epilogue is reported by it or by softmax, the rest from the bank.
    assert products == log["loaded"].sum() + (log["done"] >> 1 & 1).sum()
    assert 0 < log["loaded"].sum() < products


def test_channels_move_what_the_card_counts(run):
    log, counters = run
    # Channel 0 has control's own beats, too: the command, the program, the records.
    read, written = ((log["channels"] & bit != 0).sum(0) for bit in (Activity.READ, Activity.WRITE))
    assert len(set(read[1:])) == 1
    assert 0 < read[0] - read[1] == read.sum() - counters["read_beats"]
    assert written[1:].sum() < counters["write_beats"] < written.sum()
    states = log["channels"] & ~np.uint8(Activity.WRITE)
    assert set(np.unique(states)) == {0, Activity.READ, Activity.LATE, Activity.FULL}
