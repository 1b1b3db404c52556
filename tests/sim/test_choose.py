# SPDX-License-Identifier: Apache-2.0
"""Which matrices are whole on every card: the choice, held against all others by the estimator."""

import dataclasses
import doctest
import functools
import itertools
import math

import numpy as np
import pytest

from cardsim.estimate.estimate import estimate
from cardsim.functional import open_cards
from cardsim.rtl.timing import LinkTiming, Timing
from heddle import choose
from heddle.bench import Workload
from heddle.choose import Machine, Model, alternatives, split_name
from heddle.compile import Compiler
from heddle.errors import UserError
from heddle.explain import explain
from heddle.layout import layouts
from heddle.measure import Bench
from heddle.options import Options
from heddle.partition import WHOLE
from heddle.runtime import Runtime
from heddle.shape import Shape
from heddle.shapes import RandomSource, find_shape
from heddle.useful import useful_bytes
from rtl_gen.spec.config import CONFIGS, TINY, U280
from rtl_gen.spec.formats import DENSE, stored_as
from tests.sim.test_ring import CASES, WAYS, outcome

#: Latency (ns) and rate (bytes per ns).
FAST, USUAL, SLOW = (0.0, 100.0), (540.0, 12.1), (20_000.0, 1.0)
#: Of the best layout's cycles: what a choice may cost more.
NEAR = 1.06
SUBSETS = [frozenset(subset) for count in range(len(WHOLE) + 1)
           for subset in itertools.combinations(WHOLE, count)]


def test_examples():
    assert doctest.testmod(choose).failed == 0


def test_the_simulators_rates_are_the_defaults():
    machine, link = Machine(), LinkTiming()
    assert (machine.link_latency_ns, machine.link_gbps) == (link.latency_ns, link.gbps)
    assert math.isclose(machine.channel_gbps, Timing().average_gbps)


@functools.cache
def cycles(config, cards, shape, link, split):
    found = estimate(dataclasses.replace(CONFIGS[config], cards=cards), find_shape(shape),
                     Workload(context=128), options=Options(split=split),
                     link=LinkTiming(latency_ns=link[0], gbps=link[1]))
    return found["cycles_total"]


@pytest.mark.parametrize("link", [FAST, USUAL, SLOW])
@pytest.mark.parametrize(("config", "shape", "cards"), [
    ("tiny", "1:128:997", 2), ("tiny", "1:256:997", 4), ("u280", "1:512:997", 4)])
def test_the_choice_is_near_the_best(config, shape, cards, link):
    costs = {whole: cycles(config, cards, shape, link, split_name(whole)) for whole in SUBSETS}
    chosen, best = cycles(config, cards, shape, link, "auto"), min(costs.values())
    assert chosen <= NEAR * best
    assert chosen <= costs[frozenset()]
    if link == SLOW or (link == FAST and config == "tiny"):
        assert chosen == best
    if config == "tiny":
        # The extremes differ: a choice that looked at no link would fail one of them.
        assert (best < costs[frozenset()]) == (link == SLOW)


def test_slower_links_make_more_whole():
    shape = find_shape("2:256:997")
    config = dataclasses.replace(TINY, cards=4)
    sizes = [len(alternatives(config, shape, Options(), DENSE,
                              Machine(link_latency_ns=latency))[0].whole)
             for latency in (0, 1e3, 1e4, 1e6)]
    assert sizes == sorted(sizes)
    assert sizes[0] == 0
    assert sizes[-1] == len(WHOLE)


@pytest.mark.parametrize("pattern", [DENSE, stored_as(2, 4)], ids=lambda found: found.name)
@pytest.mark.parametrize("cards", [2, 4, 8])
@pytest.mark.parametrize("shape", ["gpt2-124m", "gpt2-345m", "gpt2-774m", "gpt2-1.5b"])
def test_a_fused_projection_would_be_slower_than_the_best(shape, cards, pattern):
    """Why there is none, though on eight cards it can beat matrices that are all split."""
    config, shape = dataclasses.replace(U280, cards=cards), find_shape(shape)
    model = Model(config, shape, Options(cache="int8"), pattern, Machine(), shape.context // 2)
    assert model.fused() > min(model.estimate(whole).layer for whole in SUBSETS)


SHAPE = Shape(layers=1, width=256, inner=512, vocabulary=300, context=40)
SLOWEST = Machine(link_latency_ns=1e6)


def test_what_does_not_fit_is_not_chosen():
    def used(config, split):
        return [layout.memory.used for layout in layouts(config, SHAPE, Options(split=split))]

    config = dataclasses.replace(TINY, cards=4, channel_bytes=1 << 20)
    whole = split_name(frozenset(WHOLE))
    assert layouts(config, SHAPE, Options(), machine=SLOWEST)[0].parts.whole == set(WHOLE)
    assert min(used(config, whole)) > max(used(config, "outputs"))
    # A wide hidden vector, and memory in which the split matrices have room and whole ones not.
    shape = dataclasses.replace(SHAPE, inner=4096)
    small = dataclasses.replace(config, channel_bytes=1 << 19)
    with pytest.raises(UserError, match="HBM channels"):
        layouts(small, shape, Options(split=whole))
    chosen = layouts(small, shape, Options(), machine=SLOWEST)[0].parts.whole
    assert chosen < set(WHOLE)


def test_one_card_has_everything():
    for split in ("auto", "outputs"):
        assert not layouts(TINY, SHAPE, Options(split=split))[0].parts.whole
    with pytest.raises(UserError, match="split must be auto or outputs on one card, which has "
                                        "everything, not whole:out"):
        layouts(TINY, SHAPE, Options(split="whole:out"))


def test_a_vocabulary_too_short_to_be_split_is_whole():
    config, shape = dataclasses.replace(TINY, cards=4), dataclasses.replace(SHAPE, vocabulary=10)
    assert "head" in layouts(config, shape, Options())[0].parts.whole
    with pytest.raises(UserError, match="its vocabulary of 10 fills rows of 4, which is 3, not 4"):
        layouts(config, shape, Options(split="outputs"))
    with pytest.raises(UserError, match="no more cards than the model has heads"):
        layouts(dataclasses.replace(TINY, cards=8), shape, Options())


def test_a_bench_has_the_layout_that_is_estimated():
    """At every clock: at 50 MHz links are fast, at 1,000 MHz far away."""
    shape, work = find_shape("1:256:997"), Workload(context=20)
    config, splits = dataclasses.replace(TINY, cards=4), set()
    for clock in (50.0, 1000.0):
        bench = Bench(cards="rtl:tiny*4", shape=shape, workload=work, options=Options(),
                      card_options={"clock_mhz": clock})
        split = estimate(config, shape, work, timing=Timing(clock_mhz=clock))["split"]
        assert split_name(bench.layouts(config)[0].parts.whole) == split
        splits.add(split)
    assert len(splits) == 2


@pytest.mark.parametrize("split", ["", "whole", "whole:", "whole:qkv", "out", "auto:out"])
def test_splits_that_there_are_not(split):
    with pytest.raises(UserError, match="split must be auto, outputs, or whole:"):
        Options(split=split)


@pytest.mark.parametrize(("name", "way", "split"), [
    ("three on two", "a16", "whole:out"), ("three on two", "2:4", "whole:up,head"),
    ("even", "1:8 a8", "whole:down"), ("five on four", "a16", "whole:down,head"),
    ("five on four", "2:4", "whole:out,up"), ("five on four", "a16", "whole:out,up,down,head")])
def test_whole_matrices_change_no_bit(name, way, split):
    width, inner, vocabulary, cards = CASES[name]
    shape = Shape(layers=2, width=width, inner=inner, vocabulary=vocabulary, context=40)
    options, pruning = WAYS[way]
    found = []
    for count in (1, cards):
        how = Options(**options, split=split if count > 1 else "auto")
        placed = layouts(dataclasses.replace(TINY, cards=count), shape, how, pruning)
        runtime = Runtime(open_cards(placed[0].config), placed)
        runtime.load_model(RandomSource(shape, pruning=pruning))
        found.append(outcome(runtime))
    (logits, records), (others, again) = found
    assert placed[0].parts.whole == Options(split=split).whole
    assert records == again
    for one, other in zip(logits, others, strict=True):
        assert (one.view(np.uint32) == other.view(np.uint32)).all()


def test_a_whole_matrix_sends_nothing():
    config = dataclasses.replace(U280, cards=4)
    shape = dataclasses.replace(find_shape("gpt2-345m"), layers=2)

    def sent(split):
        layout = layouts(config, shape, Options(split=split))[0]
        return sum(explain(layout, Compiler(layout).program())["sends"].values())

    all_, vector = sent("outputs"), shape.layers * shape.width * 4 * 3 / 4
    for split, vectors in (("whole:out", 1), ("whole:down", 1), ("whole:up", 4),
                           ("whole:out,up,down", 6)):
        assert all_ - sent(split) == vectors * vector


def test_useful_bytes_are_those_of_one_card():
    one = useful_bytes(layouts(TINY, SHAPE, Options())[0], 10)
    for split in ("outputs", "whole:out,down", "whole:out,up,down,head"):
        ring = [useful_bytes(layout, 10) for layout in layouts(
            dataclasses.replace(TINY, cards=4), SHAPE, Options(split=split))]
        assert sum(part.useful for part in ring) == one.useful
