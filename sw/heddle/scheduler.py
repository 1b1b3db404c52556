# SPDX-License-Identifier: Apache-2.0
"""Continuous batching: sequences join and leave the token columns of the cards between steps.

As Orca (Yu et al., OSDI 2022) schedules: by step, not by request.  A slot is a token column and
the K and V that belong to it.  A long prompt is read in pieces, between decode steps of the
others; a decode step takes a token of the prompt along in its column, too.
"""

import collections
import threading
import time
from collections.abc import Iterable

from .card import CardError
from .errors import RunError
from .request import Finish, Request, Sequence, Token
from .results import Result
from .runtime import Runtime
from .sampling import best_first, choose, penalise

#: Steps of one command while a sequence is alone: few enough that text appears as it is made.
CHUNK = 8
#: Passes of a prompt between two decode steps of others.
PIECE = 4
#: Passes of a prompt in one command while a sequence is alone: few enough that it can be cancelled.
LONG = 64


class Scheduler:
    """Runs many sequences on the cards of one runtime.

    A sequence's tokens do not depend on what runs beside it.  Any thread may call any method; each
    :meth:`step` is carried out by the thread that calls it.

    Parameters
    ----------
    runtime : Runtime
        Nobody else may use it while sequences run.
    """

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.waiting: collections.deque[Sequence] = collections.deque()
        self.slots: list[Sequence | None] = [None] * runtime.layout.sequences
        #: Sequences of ended requests, by how they ended.
        self.ended: collections.Counter[Finish] = collections.Counter()
        #: Tokens whose K and V were made, and new ones.
        self.read, self.made = 0, 0
        self._lock = threading.RLock()
        self._broken = False

    @property
    def running(self) -> list[Sequence]:
        """Sequences that have a slot."""
        return [sequence for sequence in self.slots if sequence is not None]

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self.waiting and not self.running

    def submit(self, request: Request) -> Sequence:
        """Queue a request; it gets a slot when one is free, in the order of submission."""
        with self._lock:
            sequence = Sequence(request)
            self.waiting.append(sequence)
            if not request.max_new_tokens and not (request.scored and sequence.pending > 1):
                self._end(sequence, Finish.LENGTH)
            return sequence

    def cancel(self, sequence: Sequence, finish: Finish = Finish.CANCELLED) -> None:
        """End a sequence that has not ended; its slot is free for the next step."""
        with self._lock:
            if sequence.finish is None:
                self._end(sequence, finish)

    def state(self, sequence: Sequence, since: int = 0) -> tuple[list[Token], Finish | None]:
        """New tokens from the ``since``-th on, and how it has ended, of one moment between steps.

        The latter is None while it has not.  Nobody waits for a step in which nothing has come yet.
        """
        if sequence.finish is None and len(sequence.new) == since:
            return [], None
        with self._lock:
            return sequence.new[since:], sequence.finish

    def step(self) -> list[Sequence]:
        """Let every sequence go on by a token or a piece of its prompt.

        Returns
        -------
        list of Sequence
            Those that went on or ended.

        Raises
        ------
        CardError
            The cards failed and could not be reset: all sequences have ended with this error.
        """
        with self._lock:
            if self._broken:
                self._reset()
            self._admit()
            running = self.running
            if not running:
                return []
            self._broken = True     # until the step has ended well, or badly in an orderly way
            try:
                if len(running) == 1:
                    self._alone(running[0])
                else:
                    self._together(running)
            except CardError as error:
                for sequence in running:
                    self._end(sequence, Finish.ERROR, error)
                self._reset()
            self._broken = False
            for sequence in running:
                if sequence.finish is not None:
                    self._end(sequence, sequence.finish)
            return running

    def _reset(self) -> None:
        """Bring the cards back; K and V of what runs cannot be trusted."""
        for sequence in self.running:
            self._end(sequence, Finish.ERROR, CardError(
                "a step of the cards was interrupted; ask again"))
        try:
            self.runtime.reset()
        except CardError as error:
            for sequence in list(self.waiting):
                self._end(sequence, Finish.ERROR, error)
            raise
        self._broken = False

    def _admit(self) -> None:
        for slot, holder in enumerate(self.slots):
            if holder is None and self.waiting:
                sequence = self.waiting.popleft()
                sequence.slot, sequence.started = slot, time.monotonic()
                self.slots[slot] = sequence

    def _end(self, sequence: Sequence, finish: Finish, error: Exception | None = None) -> None:
        sequence.end(finish, error)
        if sequence.slot is not None:
            self.slots[sequence.slot] = None
            sequence.slot = None
        elif sequence in self.waiting:
            self.waiting.remove(sequence)
        else:
            return
        self.ended[sequence.finish or finish] += 1

    # ---- Steps. ----

    def _kind(self, running: Iterable[Sequence]) -> tuple[int, bool]:
        """Candidates and whether logits are stored: what is enough for all.

        Few kinds are asked for: the cards load programs anew when it changes.
        """
        most, few, rows = self.runtime.layout.config.top_k, False, False
        for sequence in running:
            wanted = sequence.request.sampling.candidates(most)
            rows |= wanted is None
            few |= bool(wanted or sequence.request.logprobs)
        return most * few, rows

    def _alone(self, sequence: Sequence) -> None:
        """One command, of several tokens if it can be."""
        runtime, request, slot = self.runtime, sequence.request, sequence.slot or 0
        candidates, rows = self._kind([sequence])
        tokens, position = sequence.tokens, sequence.position
        passes, steps = LONG * runtime.layout.tokens, 1
        try:
            if request.scored and sequence.pending > 1:
                self._score(sequence, LONG)
            elif sequence.pending > passes:
                self._read(sequence, passes)
            elif sequence.pending > 1:
                result = runtime.read(tokens[position:], position, slot=slot,
                                      candidates=candidates, store_logits=rows)
                assert result is not None
                self._made(sequence, sequence.pending)
                self._choose(sequence, result, 0)
            else:
                if request.sampling.greedy and not rows and not sequence.singly:
                    steps = min(sequence.left, CHUNK)
                for result in runtime.run(
                        tokens[position:], position, steps, stops=request.stop_tokens, slot=slot,
                        candidates=candidates, store_logits=rows):
                    if sequence.finish is None:
                        self._made(sequence, 1)
                        self._choose(sequence, result, 0)
        except RunError as error:
            if steps == 1:
                self._end(sequence, Finish.ERROR, error)
            else:
                # It gets the tokens before the one that failed, as it would beside others; and may
                # end with one of them.
                sequence.singly = True

    def _together(self, running: list[Sequence]) -> None:
        """A piece of one prompt, and a decode step."""
        reading = [sequence for sequence in running if sequence.pending > 1]
        if reading:
            # The one that has waited longest.
            first = min(reading, key=lambda sequence: sequence.submitted)
            try:
                if first.request.scored:
                    self._score(first, PIECE)
                else:
                    self._read(first, PIECE * self.runtime.layout.tokens)
            except RunError as error:
                self._end(first, Finish.ERROR, error)
        if any(sequence.pending == 1 and sequence.finish is None for sequence in running):
            self._decode([sequence for sequence in running if sequence.finish is None])

    def _read(self, sequence: Sequence, most: int) -> None:
        """Read up to ``most`` tokens of a prompt, but the last one."""
        size = self.runtime.layout.tokens
        count, position = min(sequence.pending - 1, most), sequence.position
        # A pass that is not full reads some tokens again, to the same K and V.
        start = position + count - size if count < size <= position + count else position
        candidates, rows = self._kind(self.running)
        self.runtime.read(sequence.tokens[start:position + count], start, silent=True,
                          slot=sequence.slot or 0, candidates=candidates, store_logits=rows)
        self._made(sequence, count)

    def _score(self, sequence: Sequence, most: int) -> None:
        """Foretell up to ``most`` tokens of a prompt, but the first."""
        count, position = min(sequence.pending - 1, most), sequence.position
        given = sequence.tokens[position:position + count + 1]
        candidates, rows = self._kind(self.running)
        results = self.runtime.run(given, position, count, slot=sequence.slot or 0,
                                   candidates=candidates, store_logits=rows)
        for token, result in zip(given[1:], results, strict=True):
            assert result.target_logit is not None
            sequence.foretold.append(self._token(sequence, token, result.target_logit, result))
        self._made(sequence, count)
        if not sequence.request.max_new_tokens and sequence.pending == 1:
            sequence.end(Finish.LENGTH)

    def _decode(self, running: list[Sequence]) -> None:
        """One token of every sequence, a prompt's included."""
        if len(running) == 1:
            self._alone(running[0])
            return
        candidates, rows = self._kind(running)
        by_slot = {sequence.slot: sequence for sequence in running}
        # A free slot's column computes what nobody wants: its next owner makes K and V anew.
        columns = [by_slot.get(slot) for slot in range(max(slot or 0 for slot in by_slot) + 1)]
        tokens = [0 if each is None else each.tokens[each.position] for each in columns]
        positions = [0 if each is None else each.position for each in columns]
        try:
            results = self.runtime.batch(tokens, positions, candidates=candidates,
                                         store_logits=rows)
        except RunError:
            # One sequence's numbers are no reason for the others to end.
            for each in running:
                self._single(each, candidates, rows)
            return
        for column, (owner, result) in enumerate(zip(columns, results, strict=True)):
            if owner is not None:
                self._decoded(owner, result, column)

    def _single(self, sequence: Sequence, candidates: int, rows: bool) -> None:
        position = sequence.position
        try:
            result, = self.runtime.run(
                [sequence.tokens[position]], position, 1, slot=sequence.slot or 0,
                candidates=candidates, store_logits=rows)
            self._decoded(sequence, result, 0)
        except RunError as error:
            self._end(sequence, Finish.ERROR, error)

    def _decoded(self, sequence: Sequence, result: Result, column: int) -> None:
        """What a decode step says of one column."""
        if sequence.request.scored and sequence.pending > 1:
            return      # its target was not given: it is foretold in pieces alone
        self._made(sequence, 1)
        if not sequence.pending:
            self._choose(sequence, result, column)

    def _made(self, sequence: Sequence, count: int) -> None:
        sequence.position += count
        self.read += count

    # ---- Tokens. ----

    def _choose(self, sequence: Sequence, result: Result, column: int) -> None:
        """The next token of a sequence, whose logits are those of a column."""
        sampling = sequence.request.sampling
        wanted = sampling.candidates(self.runtime.layout.config.top_k)
        if wanted == 0:
            token, logit = result.token, result.logit
        elif wanted is not None:
            token = choose(result.candidates, result.candidate_logits, sampling, sequence.rng)
            logit = float(result.candidate_logits[list(result.candidates).index(token)])
        else:
            raw = self.runtime.logits(column)
            row = raw if not sampling.penalised else penalise(
                raw, sequence.request.prompt, [each.id for each in sequence.new], sampling)
            token = choose(*best_first(row), sampling, sequence.rng)
            logit = float(raw[token])
        self.made += 1
        sequence.take(self._token(sequence, token, logit, result))

    def _token(self, sequence: Sequence, token: int, logit: float, result: Result) -> Token:
        count = sequence.request.logprobs
        if count is None:
            return Token(token)
        return Token(token, logit - result.log_sum, tuple(
            (int(best), float(other) - result.log_sum) for best, other in zip(
                result.candidates[:count], result.candidate_logits[:count], strict=True)))
