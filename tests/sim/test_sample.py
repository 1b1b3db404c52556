# SPDX-License-Identifier: Apache-2.0
"""SAMPLE on the functional card: records, candidates, targets, and the loop that it drives."""

import numpy as np
import pytest

from cardsim import numerics as nx
from rtl_gen.spec import rules
from rtl_gen.spec.config import SMALL, TINY
from rtl_gen.spec.registers import NO_TARGET, RESULT
from tests.sim.bench import RESULT_BEATS, RESULTS_BEAT, Bench, bits


def blocks(count, lanes, size):
    """SAMPLE instructions over ``count`` logits in blocks of ``size`` words."""
    per_block = size * lanes
    for start in range(0, count, per_block):
        part = min(per_block, count - start)
        yield {"a": start // lanes, "words": -(-part // lanes), "count": part, "token": 50 + start,
               "columns": 1, "first": start == 0, "last": start + part == count}


def golden_record(logits, token, target):
    lanes_last = sorted(range(len(logits)), key=lambda n: (-int(nx.key(logits[n])), n))
    best = lanes_last[0]
    hit = target is not None and 0 <= target - token < len(logits)
    return {"token": token + best, "logit": int(bits(logits[best])),
            "target": NO_TARGET if target is None else target,
            "target_logit": int(bits(logits[target - token])) if hit else 0}, lanes_last


def draw(kind, rng, count):
    x = (rng.normal(size=count) * 6).astype(np.float32)
    if kind == "ties":
        return np.round(x)          # many equal logits, zeros of both signs among them
    if kind == "negative":
        return -np.abs(x) - 1
    if kind == "rising":
        return np.sort(x)           # the maximum changes with every word
    if kind == "special":
        x[rng.integers(0, count, 3)] = [np.inf, -np.inf, 1e-42]
        if count > 100:
            x[count // 2] = np.nan
    return x


@pytest.mark.parametrize("kind", ["plain", "ties", "negative", "rising", "special"])
@pytest.mark.parametrize("count", [1, 4, 5, 83, 700])
@pytest.mark.parametrize("config", [TINY, SMALL], ids=lambda c: c.name)
def test_records(config, count, kind):
    rng = np.random.default_rng([count, len(kind)])
    lanes, bench = config.channels, Bench(config)
    logits = draw(kind, rng, count)
    padded = np.full(-(-count // lanes) * lanes, np.nan, np.float32)    # not valid, not read
    padded[:count] = logits
    if kind == "plain":
        padded[count:] = 100
    bench.put_words(0, bits(padded).reshape(-1, lanes))
    run = nx.LogSumExp()
    run.update(padded.reshape(-1, lanes), count)
    for k, target, size in ((0, None, 200), (5, 50, 3), (64, 49 + count, 7), (64, 49, 200)):
        given = [] if target is None else [1, 2, 3, target]
        status = bench.run(
            ("LOAD", {"rows": 1, "words": len(padded) // lanes}),
            *(("SAMPLE", f | {"k": k}) for f in blocks(count, lanes, size)),
            given=given, registers={1: 77, 5: 2})
        found, pairs = bench.record(2, k)
        expected, ranked = golden_record(logits, 50, target)
        assert {name: found[name] for name in expected} == expected
        assert (found["step"], found["position"]) == (2, 77)
        assert (found["max"], found["sum"]) == (bits(run.m), bits(run.s))
        best = [[50 + n, bits(logits[n])] for n in ranked[:k]]
        assert pairs.tolist() == best + [[0xFFFFFFFF, 0]] * (k - len(best))
        assert status["sticky"] == int(nx.nonfinite(logits))


@pytest.mark.parametrize("columns", [2, 3, 4])
@pytest.mark.parametrize("config", [TINY, SMALL], ids=lambda c: c.name)
def test_columns_are_rows_of_their_own(config, columns):
    """The records of several columns are those of each by itself, at whole beats."""
    rng = np.random.default_rng(columns)
    lanes, count, k, stride = config.channels, 83, 7, 40
    blocked = list(blocks(count, lanes, 3))
    bench, alone = Bench(config), Bench(config)
    logits = [draw(kind, rng, stride * lanes) for kind in ("ties", "special", "rising", "plain")]
    load = ("LOAD", {"rows": 1, "words": stride * columns})
    bench.put_words(0, np.concatenate([bits(x).reshape(-1, lanes) for x in logits[:columns]]))
    bench.run(load, *(("SAMPLE", f | {"k": k, "columns": columns, "stride": stride})
                      for f in blocked), ("NEXT", {}), given=[1, 60], registers={5: 2, 1: 9, 6: 1})
    beats = rules.record_beats(config, k)
    size = beats * config.beat_bytes // 4
    found = bench.get(RESULTS_BEAT + 2 * RESULT_BEATS, size * columns + 4)
    for column, x in enumerate(logits[:columns]):
        alone.put_words(0, bits(x).reshape(-1, lanes))
        alone.run(load, *(("SAMPLE", f | {"k": k}) for f in blocked), registers={5: 2, 1: 9})
        record = alone.get(RESULTS_BEAT + 2 * RESULT_BEATS, size)
        assert found[column * size:(column + 1) * size].tolist() == record.tolist()
        assert record[RESULT.index("target")] == NO_TARGET
    assert not found[columns * size:].any()
    assert bench.card.registers[3] == found[0]


def test_targets_are_looked_for_in_one_column_only():
    bench = Bench(TINY)
    sample = {"words": 1, "count": 4, "first": 1, "last": 1, "stride": 1}
    bench.put_words(0, bits(np.arange(8).reshape(2, 4) + 1.0))
    for columns, expected in ((1, (2, bits(np.float32(3)))), (2, (NO_TARGET, 0))):
        bench.run(("LOAD", {"rows": 1, "words": 2}), ("SAMPLE", sample | {"columns": columns}),
                  given=[0, 2])
        found, _ = bench.record()
        assert (found["target"], found["target_logit"]) == expected


def test_a_loop_feeds_on_its_samples():
    """Each token looks up the logits that choose the next, until a stop token."""
    rng = np.random.default_rng(9)
    bench = Bench(TINY)
    follows = rng.permutation(32)
    table = rng.normal(size=(32, 32)).astype(np.float32)
    table[np.arange(32), follows] = 10
    for token in range(32):
        bench.put_words(4 * token, bits(table[token]).reshape(8, 4))
    path = [3]
    while len(path) < 7:
        path.append(int(follows[path[-1]]))
    program = [("LOAD", {"index_reg": 3, "stride": 4, "rows": 1, "words": 8}),
               ("SAMPLE", {"words": 8, "count": 32, "first": 1, "last": 1, "k": 1, "columns": 1}),
               ("NEXT", {"target": 0})]
    status = bench.run(*program, registers={1: 0, 2: 1, 3: 3, 6: 20}, stops=[path[5]])
    assert status["steps"] == 5
    assert [bench.record(step)[0]["token"] for step in range(5)] == path[1:6]
    assert [bench.record(step)[0]["position"] for step in range(5)] == list(range(5))
    assert bench.card.registers[:4] == [0, 5, 6, path[5]]
    # Teacher-forced: the given tokens are looked up, and are the targets.
    given = [4, 8, 15, 16]
    bench.run(*program, registers={3: 4, 6: 4}, given=given)
    for step, token in enumerate(given):
        found, _ = bench.record(step)
        assert found["token"] == follows[token]
        if step < 3:
            assert found["target_logit"] == bits(table[token, given[step + 1]])
        else:
            assert found["target"] == NO_TARGET
