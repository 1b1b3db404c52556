# SPDX-License-Identifier: Apache-2.0
"""``heddle estimate`` against the Verilated card: cycles within 3 %, on every configuration."""

import dataclasses

import pytest

from cardsim.estimate.estimate import estimate
from cardsim.rtl import Timing
from heddle.bench import Workload
from heddle.measure import Bench
from heddle.options import Options
from heddle.shapes import find_shape
from rtl_gen.spec.config import SMALL, TINY, U280

#: The estimator is quoted for what is too large to simulate; it may be so much wrong.
BOUND = 0.03

#: Workloads of small models, where starts and ends weigh the most.
DECODE = {
    "dense": (Workload(context=20), {}),
    "2:4, longer": (Workload(context=128), {"pattern": "2:4"}),
    "1:4, int8": (Workload(context=300), {"pattern": "1:4", "cache": "int8"}),
    "a8, int8": (Workload(context=63), {"activation": "a8", "cache": "int8"}),
    "4:8, several steps": (Workload(context=90, new=3), {"pattern": "4:8"}),
    "2:8, layers alone": (Workload(context=40, full=False), {"pattern": "2:8"}),
    "225 MHz, 289 ns": (Workload(context=50), {}),
}
PASSES = {
    "prompt": (Workload(context=0, prompt=9), {}),
    "prompt and steps": (Workload(context=0, prompt=10, new=3),
                         {"activation": "a8", "pattern": "2:4"}),
    "batch of 2": (Workload(context=100, batch=2), {}),
    "batch of 4": (Workload(context=120, batch=4, spread=9),
                   {"activation": "a8", "cache": "int8"}),
}
#: Sums of softmax and LOADs of scales that take longer than the engine with K and V.
LONG = {
    "1,023 positions": (Workload(context=1023, full=False), {"cache": "int8"}),
    "1,023 positions, a8, 2:4": (Workload(context=1023, full=False),
                                 {"activation": "a8", "pattern": "2:4"}),
}
EVERY = DECODE | PASSES | LONG


def cases(config, shape, names):
    """One parameter a workload."""
    return [pytest.param(config, shape, name, id=f"{config.name} {shape} {name}",
                         marks=[pytest.mark.xdist_group(f"card {config.name}"),
                                *((pytest.mark.slow,) if config == U280 else ())])
            for name in names]


RING = {
    "ring": (Workload(context=60), {"pattern": "2:4", "cache": "int8"}),
    "ring, prompt": (Workload(context=0, prompt=10, new=3), {}),
    "ring, whole matrices": (Workload(context=90), {"split": "whole:out,up"}),
    "ring, layers alone": (Workload(context=128, full=False), {"activation": "a8"}),
}


RINGS = [(cards, shape, name) for cards, shape in (
    (2, "2:192:997"), (4, "2:256:997"), (4, "1:320:1500")) for name in RING]


@pytest.mark.cosim
@pytest.mark.parametrize(("cards", "shape", "name"), [
    pytest.param(cards, shape, name, marks=[pytest.mark.xdist_group(f"card tiny ring {cards}")],
                 id=f"tiny*{cards} {shape} {name}")
    for cards, shape, name in (*RINGS, (8, "1:576:997", "ring"))])
def test_estimated_cycles_are_those_of_a_ring(cards, shape, name):
    """Of its slowest card, even where heads are split unevenly."""
    workload, options = RING[name]
    config, shape = dataclasses.replace(TINY, cards=cards), find_shape(shape)
    measured = Bench(cards=f"rtl:tiny*{cards}", shape=shape, workload=workload,
                     options=Options(**options)).run()
    estimated = estimate(config, shape, workload, options=Options(**options))
    assert measured["equal_to_sim"] is True
    assert measured["cards"] == estimated["cards"] == cards
    assert estimated["cycles_total"] == pytest.approx(measured["cycles_total"], rel=BOUND)
    assert estimated["useful_bytes_per_token"] == measured["useful_bytes_per_token"]
    link = measured["link"]
    assert len(link["stall_cycles"]) == len(link["idle_cycles"]) == cards
    for stalls, idle in zip(link["stall_cycles"], link["idle_cycles"], strict=True):
        assert 0 < idle <= stalls < measured["cycles_total"]


@pytest.mark.cosim
@pytest.mark.parametrize(("config", "shape", "name"), [
    *cases(TINY, "2:128:997", DECODE | PASSES),
    # Five heads, on four channels.
    *cases(TINY, "1:320:509", ("dense", "2:4, longer", "prompt and steps", "batch of 4")),
    *cases(SMALL, "2:256:997", EVERY),
    *cases(U280, "2:1024:50257", ("2:4, longer", "prompt and steps", "batch of 4",
                                  "1,023 positions"))])
def test_estimated_cycles_are_those_of_the_card(config, shape, name):
    workload, options = EVERY[name]
    timing = dataclasses.replace(Timing(clock_mhz=225), latency_ns=289) \
        if name == "225 MHz, 289 ns" else Timing()
    shape = find_shape(shape)
    measured = Bench(cards=f"rtl:{config.name}", shape=shape, workload=workload,
                     options=Options(**options), card_options={"timing": timing}).run()
    estimated = estimate(config, shape, workload, options=Options(**options), timing=timing)
    assert measured["equal_to_sim"] is True
    assert estimated["cycles_total"] == pytest.approx(measured["cycles_total"], rel=BOUND)
    # What is read is counted, not estimated.
    assert estimated["hbm_bytes_per_token"] == measured["hbm_bytes_per_token"]
