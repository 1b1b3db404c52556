# SPDX-License-Identifier: Apache-2.0
"""The pin ``events``: what a simulation records of every cycle."""

from amaranth import Cat
from amaranth.lib import data

from ..control import Control
from ..matmul import Engine
from ..matmul.epilogue import Epilogue
from ..spec.events import FIELDS

LAYOUT = data.StructLayout(dict(FIELDS))


def show(pin, control: Control, engine: Engine, epilogue: Epilogue):
    """Statements that give ``pin`` the word of ``spec.events``: wires only."""
    dispatch, queues, events = control.dispatch, control.queues, control.events
    values = {
        "running": control.supervisor.running,
        "issue": dispatch.issued.any(), "control": dispatch.done.valid, "pc": dispatch.issue.pc,
        "fence": dispatch.fenced, "full": dispatch.crowded,
        "offered": Cat(job.valid for job in control.jobs),
        "taken": Cat(job.valid & job.ready for job in control.jobs),
        "done": Cat(done.valid for done in control.done),
        "held": queues.held[1], "empty": queues.empty[1], "loaded": epilogue.loaded,
        "entries": events.entries, "last": engine.ends,
        "wait_weights": events.wait_weights, "wait_rows": events.wait_rows,
        "read_beats": events.read_beats, "write_beats": events.write_beats}
    word = data.View(LAYOUT, pin[:LAYOUT.size])
    return [word[name].eq(values[name]) for name, _ in FIELDS]
