# SPDX-License-Identifier: Apache-2.0
"""Card configurations: what is refused, and what follows from a configuration."""

import dataclasses
import subprocess
import sys

import pytest

from rtl_gen.spec import config


@pytest.mark.parametrize(("change", "message"), [
    ({"channels": 3}, r"channels must be a power of two in 1\.\.32, not 3"),
    ({"channels": 64, "vector_lanes": 64}, r"channels must be a power of two in 1\.\.32, not 64"),
    ({"judges": 3}, r"judges must be a power of two in 1\.\.4, not 3"),
    ({"queue_depth": 2}, r"queue_depth must be a power of two in 4\.\.64, not 2"),
    ({"beat_bytes": 4}, r"beat_bytes must be a power of two in 8\.\.64, not 4"),
    ({"tokens": 3}, "tokens must be 2 or 4, not 3"),
    ({"vector_lanes": 8}, r"vector_lanes must equal channels \(4\), not 8"),
    ({"channels": 32, "vector_lanes": 32},
     r"vector_lanes must be at most beat_bytes \(16\), not 32"),
    ({"cards": 3}, "cards must be 1, 2, 4 or 8, not 3"),
    ({"cards": 2, "beat_bytes": 32},
     r"of a card in a ring vector_lanes must be at least beat_bytes / 4 \(8\), not 4"),
    ({"cards": 2, "beat_bytes": 8},
     r"of a card in a ring beat_bytes must be at least 16, a frame's trailer, not 8"),
    ({"group_sizes": (5,)}, "group_sizes must be a choice of 4, 8 and 16"),
    ({"fifo_beats": 48}, "fifo_beats must be a power of two"),
    ({"name": "a.b"}, "name must consist of letters, digits and _, not 'a.b'"),
    ({"heads": 0}, r"heads must be in 1\.\.64, not 0"),
    ({"top_k": 5}, "top_k must be 8, 16, 32 or 64, not 5"),
])
def test_nonsense_is_refused_in_words(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(config.TINY, **change)


def test_an_unknown_configuration_is_refused_with_the_names_there_are():
    with pytest.raises(ValueError, match="must be one of tiny, small, u280, ulx3s, not 'huge'"):
        config.find("huge")


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(config.CardConfig)])
def test_the_digest_changes_with_every_parameter(field):
    value = {"name": "other", "channels": 8, "vector_lanes": 8, "beat_bytes": 32, "tokens": 2,
             "cards": 2, "group_sizes": (4,), "heads": 31, "clock_mhz": 99, "top_k": 32,
             "judges": 2, "queue_depth": 32}.get(
                 field, None if field in ("name", "group_sizes")
                 else getattr(config.TINY, field) * 2)
    change = {field: value}
    if field in ("channels", "vector_lanes"):
        change = {"channels": 8, "vector_lanes": 8}
    assert dataclasses.replace(config.TINY, **change).digest != config.TINY.digest


def test_cards_of_before_a_parameter_keep_their_digest():
    """Bitstreams of them exist: those figures are from before ``judges`` and ``queue_depth``."""
    assert {c.name: c.digest for c in (config.TINY, config.U280)} == {
        "tiny": 0x151CA4CC, "u280": 0xDD2C8C17}


def test_the_digest_is_the_same_in_every_process():
    code = "from rtl_gen.spec.config import TINY; print(TINY.digest)"
    seen = {subprocess.run([sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, check=True,
                           capture_output=True, text=True).stdout for seed in ("1", "2")}
    assert seen == {f"{config.TINY.digest}\n"}


def test_sizes_follow_from_the_geometry():
    u280 = config.U280
    assert (u280.word_bytes, u280.head_words, u280.head_beats) == (128, 2, 1)
    assert u280.plane_blocks == 512
    assert (u280.aux_words, u280.channel_beats) == (1024, 1 << 22)
    assert (config.TINY.head_words, config.TINY.head_beats) == (16, 4)
