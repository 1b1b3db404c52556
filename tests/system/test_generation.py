# SPDX-License-Identifier: Apache-2.0
"""From a prompt to text on the functional card."""

import json
import math
import zlib

import numpy as np
import pytest

import heddle
from heddle import cli
from heddle.card import CardError
from heddle.prune import prune_folder
from heddle.reference import log_probabilities
from heddle.sampling import Sampling, best_first, choose
from tests.sw import models

PROMPT = "the threads, and"


def greedy(model, prompt, count):
    return list(model.tokens(prompt, count, Sampling()))


@pytest.mark.parametrize("count", [1, 8, 9, 20])
def test_greedy_tokens_are_the_references(model, reference, count):
    prompt = model.encode(PROMPT)
    assert greedy(model, prompt, count) == list(reference.greedy(prompt, count))


def test_a_prompt_of_several_commands(model, reference):
    """One that just fits, up to the last position of the context."""
    rng = np.random.default_rng(zlib.crc32(b"long"))
    prompt = rng.integers(1, 300, 79).tolist()
    # A pass that overlaps the next one is a command of its own.
    assert len(prompt) % model.runtime.layout.tokens
    new = greedy(model, prompt, 12)
    assert new == list(reference.greedy(prompt, 12))
    for count in (13, 0):
        with pytest.raises(heddle.UserError):
            greedy(model, prompt, count)


def test_the_context_is_a_limit_and_the_error_says_so(model):
    with pytest.raises(heddle.UserError) as caught:
        model.generate(PROMPT, max_new_tokens=1000)
    count = len(model.encode(PROMPT))
    assert str(caught.value) == (f"prompt ({count} tokens) and new tokens (1000) must fit the "
                                 "context of 90")
    with pytest.raises(heddle.UserError, match="max_new_tokens must be at least 1, not 0"):
        model.generate(PROMPT, max_new_tokens=0)


def test_silent_steps_make_the_same_keys_and_values(model, reference):
    prompt = model.encode(PROMPT)
    run = model.runtime.run
    loud = run(prompt, 0, len(prompt) + 3)
    assert len(loud) == len(prompt) + 3
    for silent in (1, len(prompt) - 1):
        quiet = run(prompt, 0, len(prompt) + 3, silent=silent)
        assert [result.token for result in quiet] == [result.token for result in loud[silent:]]
        assert [result.logit for result in quiet] == [result.logit for result in loud[silent:]]
    assert run(prompt, 0, len(prompt), silent=len(prompt)) == []
    assert run([loud[-1].token], len(prompt) + 3, 1)[0].token == list(
        reference.greedy(prompt, 5))[-1]
    with pytest.raises(ValueError, match="a token for every silent step"):
        run(prompt, 0, len(prompt) + 3, silent=len(prompt) + 1)


@pytest.mark.parametrize(("cards", "options"), [
    ("sim:tiny", {"activation": "a8"}), ("sim:tiny", {}),
    ("sim:small", {"activation": "a8", "cache": "int8", "pattern": "2:4"})], ids=repr)
def test_a_batch_gives_the_bits_of_its_sequences(folder, cards, options):
    """Sequences of different lengths, that read prompts of their own."""
    with heddle.load(folder, cards=cards, **options) as model:
        runtime, count = model.runtime, model.runtime.layout.sequences
        assert count == (4 if options else 2)
        prompts = [model.encode(PROMPT)[:length] for length in (9, 1, 5, 2)[:count]]

        def alone(slot, prompt):
            token, position = runtime.read(prompt, 0, slot=slot).token, len(prompt)
            for step in range(3):
                result, = runtime.run([token], position + step, 1, slot=slot, candidates=4,
                                      store_logits=True)
                yield (result.token, result.log_sum, result.candidates.tolist(),
                       runtime.logits().tobytes())
                token = result.token

        want = [list(alone(slot, prompt)) for slot, prompt in enumerate(prompts)]
        tokens = [runtime.read(prompt, 0, slot=slot).token for slot, prompt in enumerate(prompts)]
        for step in range(3):
            results = runtime.batch(tokens, [len(prompt) + step for prompt in prompts],
                                    candidates=4, store_logits=True)
            for slot, result in enumerate(results):
                assert (result.token, result.log_sum, result.candidates.tolist(),
                        runtime.logits(slot).tobytes()) == want[slot][step]
            tokens = [result.token for result in results]
        steps = runtime.totals.steps
        assert runtime.batch(tokens, [20] * count, silent=True) == []
        assert runtime.totals.steps == steps + count
        for wrong in ([tokens[:1], [1]], [tokens * 3, [1] * 3 * count], [tokens, [1]]):
            with pytest.raises(ValueError, match="sequences"):
                runtime.batch(*wrong)
        with pytest.raises(ValueError, match=f"slot must be below {count}, not {count}"):
            runtime.read([1], 0, slot=count)


def test_text_is_streamed_as_it_is_generated(model):
    pieces = list(model.stream(PROMPT, max_new_tokens=20))
    assert len(pieces) > 2
    assert "".join(pieces) == model.generate(PROMPT, max_new_tokens=20)
    stream = model.stream(PROMPT, max_new_tokens=20)
    assert stream.generation is None
    assert list(stream) == pieces
    made = stream.generation
    assert made == "".join(pieces) == model.tokenizer.decode(made.token_ids)
    assert len(made.token_ids) == 20
    assert (made.prompt, list(made.prompt_token_ids)) == (PROMPT, model.encode(PROMPT))
    assert made.finish_reason == "length"


def test_an_empty_prompt_starts_a_text(model, reference):
    assert model.encode("") == [0]
    assert greedy(model, [0], 4) == list(reference.greedy([0], 4))


def test_the_first_text_comes_before_the_last_token(model, monkeypatch):
    monkeypatch.setattr(model.runtime, "run", None)     # decode steps
    prompt = model.encode(PROMPT)
    assert len(prompt) >= model.runtime.layout.tokens > 1
    next(model.tokens(prompt, 40, Sampling()))


@pytest.mark.parametrize("place", [0, 3, 7, 8, 11])
def test_a_stop_token_ends_the_text(model, monkeypatch, place):
    prompt = model.encode(PROMPT)
    whole = greedy(model, prompt, 16)
    first = whole.index(whole[place])
    for stops in ((whole[place],), (1, 1, 1, 1, whole[place])):
        # Beyond four, the host ends the text where the card would not.
        monkeypatch.setattr(model, "_stops", stops)
        assert greedy(model, prompt, 16) == whole[:first + 1]


def test_sampled_text_depends_on_the_seed_alone(model):
    def text(seed, **how):
        return model.generate(PROMPT, max_new_tokens=10, temperature=1.5, seed=seed, **how)

    for how in ({"top_k": 20}, {}, {"top_p": 0.9}):
        assert text(1, **how) == text(1, **how) != text(2, **how)


def test_a_stop_token_ends_sampled_text_too(model, monkeypatch):
    sampling = Sampling(temperature=1.5, seed=8, top_k=30)
    whole = list(model.tokens([5, 6], 10, sampling))
    monkeypatch.setattr(model, "_stops", (whole[4],))
    assert list(model.tokens([5, 6], 10, sampling)) == whole[:whole.index(whole[4]) + 1]


def test_sampling_looks_at_what_it_should(model, reference):
    """The same choice from the record's candidates, from the stored row and from FP32 logits."""
    prompt = model.encode(PROMPT)
    for how in ({"top_k": 10}, {"top_k": 64, "top_p": 0.8}, {"top_k": 65}, {}, {"top_p": 0.5}):
        sampling = Sampling(temperature=2.0, seed=5, **how)
        rng, tokens = np.random.default_rng(5), list(prompt)
        for token in model.tokens(prompt, 6, sampling):
            best = best_first(reference.logits(tokens)[-1])
            assert token == choose(*best, sampling, rng)
            tokens.append(token)


def test_scores_are_those_of_the_reference(model, reference):
    ids = np.random.default_rng(3).integers(1, 300, 200).tolist()
    found = heddle.evaluate.evaluate(model.runtime, ids, limit=2)
    assert (found.windows, found.tokens) == (2, 2 * 89)
    want, best = [], []
    for start in (0, 90):
        part = ids[start:start + 90]
        logits = reference.logits(part)[:-1]
        want += log_probabilities(logits)[np.arange(89), part[1:]].tolist()
        best += logits.argmax(axis=1).tolist()
    np.testing.assert_allclose(found.log_probabilities, want, atol=3e-3)
    assert found.perplexity == pytest.approx(math.exp(-np.mean(want)), rel=1e-4)
    assert list(found.best_token_ids) == best


def test_a_pruned_model_runs_in_its_pattern(folder, tmp_path):
    prune_folder(folder, "1:4", tmp_path / "p")
    found = {}
    for name, path, options in (("noted", tmp_path / "p", {}),
                                ("asked", folder, {"pattern": "1:4"}),
                                ("dense", tmp_path / "p", {"pattern": "dense"})):
        with heddle.load(path, **options) as opened:
            found[name] = opened.runtime.layout.pattern.name, greedy(opened, [5, 6], 6)
    assert found["noted"] == found["asked"]
    assert (found["noted"][0], found["dense"][0]) == ("1:4", "dense")
    # The same weights, stored otherwise.
    assert found["noted"][1] == found["dense"][1]
    config = json.loads((tmp_path / "p" / "config.json").read_text())
    del config["heddle"]
    (tmp_path / "p" / "config.json").write_text(json.dumps(config))
    with heddle.load(tmp_path / "p") as opened:
        assert opened.runtime.layout.pattern.name == "1:4"


def test_numbers_that_overflow_are_reported(tmp_path):
    found = models.tensors(layers=1, width=64, vocabulary=290, context=8)
    found["wte.weight"] *= 1e9
    with heddle.load(models.write(tmp_path, found)) as opened, \
            pytest.raises(heddle.RunError, match="an activation was too large"):
        opened.generate("a", max_new_tokens=1)


def test_a_failed_command_does_not_spoil_the_next(folder):
    with heddle.load(folder) as opened:
        want = greedy(opened, [5, 6], 3)
        run = opened.runtime.card.run

        def fails(*arguments):
            opened.runtime.card.run = run
            opened.runtime.card.reset()
            raise CardError("gone")

        opened.runtime.card.run = fails
        with pytest.raises(CardError, match="gone"):
            greedy(opened, [5, 6], 3)
        assert greedy(opened, [5, 6], 3) == want


# ---- The command line ----

def test_run_writes_text_and_json(folder, capsys, tmp_path):
    path = tmp_path / "a.json"
    assert cli.run(["run", str(folder), "--prompt", PROMPT, "--max-new-tokens", "9",
                    "--json", str(path)]) == 0
    out, err = capsys.readouterr()
    found = json.loads(path.read_text())
    assert out == found["text"] + "\n"
    assert "counts no cycles" in err
    assert len(found["token_ids"]) == 9
    assert {name: found[name] for name in ("backend", "config", "cards", "clock_mhz")} == {
        "backend": "sim", "config": "tiny", "cards": 1, "clock_mhz": 100}
    for name in ("cycles_total", "cycles_per_token", "tokens_per_second_card",
                 "hbm_bytes_per_token", "hbm_read_utilisation", "mac_utilisation", "stall_cycles"):
        assert found[name] is None


def test_run_reads_a_prompt_from_a_file(folder, capsys, tmp_path):
    (tmp_path / "prompt").write_text(PROMPT)
    texts = []
    for how in (["--prompt", PROMPT], ["--prompt-file", str(tmp_path / "prompt")]):
        assert cli.run(["run", str(folder), *how, "--max-new-tokens", "4", "--temperature", "1",
                        "--seed", "3", "--top-k", "5"]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1]


def test_run_takes_several_prompts(folder, model, capsys, tmp_path):
    path, prompts = tmp_path / "a.json", [PROMPT, "over", ""]
    assert cli.run(["run", str(folder), *(x for text in prompts for x in ("--prompt", text)),
                    "--max-new-tokens", "5", "--json", str(path)]) == 0
    found, want = json.loads(path.read_text()), model.generate(prompts, max_new_tokens=5)
    assert found["text"] == want
    assert found["token_ids"] == [list(made.token_ids) for made in want]
    assert found["prompt"] == prompts
    assert found["prompt_token_ids"] == [model.encode(prompt) for prompt in prompts]
    assert capsys.readouterr().out == "".join(
        f"{prompt}{made}\n\n" for prompt, made in zip(prompts, want, strict=True))


def test_eval_and_diff(folder, capsys, tmp_path):
    (tmp_path / "text").write_text(models.TEXT)
    path = tmp_path / "e.json"
    assert cli.run(["eval", str(folder), "--text", str(tmp_path / "text"), "--context", "16",
                    "--limit", "2", "--json", str(path)]) == 0
    found = json.loads(path.read_text())
    assert (found["windows"], found["tokens"], len(found["best_token_ids"])) == (2, 30, 30)
    assert f"perplexity {found['perplexity']:.4f} over 30 tokens" in capsys.readouterr().out
    assert cli.run(["diff", str(folder), "--prompt", PROMPT, "--dequantised",
                    "--json", str(path)]) == 0
    found = json.loads(path.read_text())
    assert found["best_tokens_equal"] == found["tokens"]
    assert max(row["relative"] for row in found["differences"]) < 1e-4
    assert "layer 1 mlp" in capsys.readouterr().out


def test_a_failed_run_has_status_1(capsys, tmp_path):
    found = models.tensors(layers=1, width=64, vocabulary=290, context=8)
    found["wte.weight"] *= 1e9
    folder = models.write(tmp_path, found)
    assert cli.run(["run", str(folder), "--prompt", "a"]) == 2      # does not fit the context
    assert cli.run(["run", str(folder), "--prompt", "a", "--max-new-tokens", "2"]) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith(
        "heddle: an activation was too large")
