# SPDX-License-Identifier: Apache-2.0
"""``heddle bench`` without a card that counts cycles."""

import json

import pytest

from heddle import cli

SMALL = ["bench", "--cards", "sim:tiny", "--shape", "1:64:300", "--context", "7"]


def test_the_functional_card_has_no_cycles(tmp_path, capsys):
    path = tmp_path / "a.json"
    assert cli.run([*SMALL, "--new", "3", "--json", str(path)]) == 0
    found = json.loads(path.read_text())
    assert (len(found["token_ids"]), found["equal_to_sim"]) == (3, None)
    for name in ("cycles_total", "tokens_per_second_card", "hbm_useful_utilisation",
                 "stall_cycles", "simulated_cycles_per_second"):
        assert found[name] is None
    assert found["needed_bytes_per_token"]["weights"] == 12 * 64 * 64 + 300 * 64
    # 7, 8 and 9 positions of K and V, of two bytes.
    assert found["needed_bytes_per_token"]["cache"] == 2 * 8 * 64 * 2
    assert "counts no cycles" in capsys.readouterr().err


def test_seeds_decide_what_is_made(tmp_path):
    found = []
    for seed in ("0", "0", "1"):
        path = tmp_path / "a.json"
        assert cli.run([*SMALL, "--new", "8", "--seed", seed, "--json", str(path)]) == 0
        found.append(json.loads(path.read_text())["token_ids"])
    assert found[0] == found[1] != found[2]


def test_sequences_of_a_batch_have_lengths_of_their_own(tmp_path):
    path = tmp_path / "a.json"
    assert cli.run([*SMALL, "--batch", "3", "--spread", "5", "--new", "2", "--activation", "a8",
                    "--json", str(path)]) == 0
    found = json.loads(path.read_text())
    assert [len(tokens) for tokens in found["token_ids"]] == [2, 2, 2]
    needed = found["needed_bytes_per_token"]
    # Each pass reads the weights once, and K and V of 7, 2 and no positions, then one more each.
    assert needed["weights"] == pytest.approx((12 * 64 * 64 + 300 * 64) / 3)
    assert needed["cache"] == pytest.approx(2 * (9 + 12) * 64 * 2 / 6)


@pytest.mark.parametrize(("more", "message"), [
    (["--shape", "gpt3"], "shape must be one of gpt2-124m, "),
    (["--pattern", "5:7"], "M of an N:M pattern must be 4, 8 or 16, not 7"),
    (["--layers", "2"], "layers must be in 1..1 for 1:64:300, not 2"),
    (["--context", "1024"], "context and new tokens must fit the context of 1024, not need 1025"),
    (["--context", "-1"], "context must be at least 0, not -1"),
    (["--new", "0"], "new must be at least 1, not 0"),
    (["--batch", "0"], "batch must be at least 1, not 0"),
    (["--batch", "4"], "batch must be at most 2 for this model and these options on tiny, not 4"),
    (["--batch", "2", "--prompt", "4"],
     "prompt must be left out with a batch of 2: a prompt is that of one sequence"),
    (["--spread", "3"], "spread must be left out without a batch"),
    (["--batch", "2", "--spread", "-1"], "spread must be at least 0, not -1"),
    (["--prompt", "0"], "prompt must be at least 1, not 0"),
    (["--prompt", "1000", "--new", "19"],
     "context and new tokens must fit the context of 1024, not need 1025"),
    (["--seed", "-1"], "seed must be at least 0, not -1"),
    (["--clock", "225"], "clock_mhz must be left out on sim, which counts no cycles"),
    (["--cards", "sim:tiny*4"], "a ring must have no more cards than the model has heads: this one "
                                "has 1 head, not 4"),
    (["--cards", "tin:tiny"], "the kind of card must be one of"),
    (["--cards", "rtl:tiny", "--clock", "-5"], "clock_mhz must be above zero, not -5"),
    (["--cards", "rtl:tiny", "--latency", "-5"], "latency_ns must be at least zero, not -5"),
    (["--cards", "sim:u281"], "configuration must be one of")])
def test_bad_input_is_refused_with_one_sentence(more, message, capsys):
    assert cli.run([*SMALL, *more]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"heddle: {message}")
    assert error.count("\n") == 1
