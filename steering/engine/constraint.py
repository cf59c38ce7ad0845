"""A grammar that a generation must follow, as a mask over the base's tokens at every step.

The grammars are llguidance's (Lark with JSON schemas inside). The mask is laid over the *fused* distribution, so that
steering and a grammar go together. A row without a constraint costs nothing.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Collection, Sequence

import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper
from llguidance.numpy import fill_next_token_bitmask
from numpy.typing import NDArray
from torch import Tensor

from mapping_cache import CanonicalVocabulary
from steering.device.transfer import on_device

_CACHED = 16
_NOISE = re.compile(r"\s*(\d+ \||<non-verbose/>)")
_HEADER = '%llguidance {"no_forcing": true}\n'
"""Where the grammar leaves one way to go on, any tokens that spell it are allowed, not one chosen spelling."""


class ConstraintError(ValueError):
    """A grammar that cannot be compiled, or that has grown beyond its limits; the message says why."""


class ConstraintState:
    """How far one sequence has come in its grammar. The engine's thread only."""

    def __init__(self, matcher: LLMatcher, vocab_size: int) -> None:
        self._matcher = matcher
        self._bits: NDArray[np.int32] = np.zeros((1, (vocab_size + 31) // 32), dtype=np.int32)
        self._read = 0
        self.error: str | None = None

    def follow(self, generated: Sequence[int]) -> bool:
        """Read those of the tokens after the prompt that were not read before; True when the grammar is complete."""
        for token in generated[self._read :]:
            if self.error is None and not self._matcher.consume_token(token):
                self.error = self._fault("a token outside the grammar was drawn")
            self._read += 1
        return self.error is None and self._matcher.is_stopped()

    def allowed(self, forbidden: Collection[int]) -> NDArray[np.int32] | None:
        """The next token's mask, int32 `[ceil(V / 32)]` of bits; None, and `error` is set, where there is none.

        What is `forbidden` is left out unless nothing else is possible: a grammar that is complete ends a generation
        before its `min_tokens`.
        """
        fill_next_token_bitmask(self._matcher, self._bits)
        if self._matcher.is_error() or not self._bits.any():
            self.error = self.error or self._fault("the grammar allows no token here")
            return None
        fewer = self._bits.copy()
        for token in forbidden:
            fewer.view(np.uint32)[0, token >> 5] &= np.uint32(0xFFFFFFFF ^ (1 << (token & 31)))
        allowed: NDArray[np.int32] = (fewer if fewer.any() else self._bits)[0]
        return allowed

    def _fault(self, otherwise: str) -> str:
        error = self._matcher.get_error()
        return _reason(error) if error else otherwise


class Constraint:
    """A compiled grammar; immutable, and shared by all the sequences that follow it. Any thread."""

    def __init__(self, matcher: LLMatcher, vocab_size: int) -> None:
        self._matcher = matcher
        self._vocab_size = vocab_size
        self._lock = threading.Lock()

    def start(self) -> ConstraintState:
        """The state of a sequence that has generated nothing."""
        with self._lock:
            return ConstraintState(self._matcher.deep_copy(), self._vocab_size)


class ConstraintCompiler:
    """Compiles grammars for one base's vocabulary and keeps the latest ones. Any thread.

    The first use takes about half a second for a vocabulary of 128,000; compiling is bounded by llguidance's own
    limits to some hundred milliseconds, of which most pass without Python's lock.
    """

    def __init__(self, vocabulary: CanonicalVocabulary, eos_token_ids: Collection[int]) -> None:
        self._vocabulary = vocabulary
        self._eos = sorted(eos_token_ids)
        self._lock = threading.Lock()
        self._tokenizer: LLTokenizer | None = None
        self._kept: OrderedDict[str, Constraint] = OrderedDict()

    def compile(self, grammar: str) -> Constraint:
        """A constraint from a Lark grammar whose first rule is `start`. Raises ConstraintError with the reason."""
        with self._lock:
            kept = self._kept.get(grammar)
            if kept is not None:
                self._kept.move_to_end(grammar)
                return kept
            if self._tokenizer is None:
                self._tokenizer = _tokenizer(self._vocabulary, self._eos)
            matcher = LLMatcher(self._tokenizer, _HEADER + grammar, log_level=0, limits=_limits())
            if matcher.is_error():
                raise ConstraintError(_reason(matcher.get_error()))
            # The first mask shows what the limits say of a grammar that compiles but cannot be followed.
            matcher.compute_bitmask()
            if matcher.is_error():
                raise ConstraintError(_reason(matcher.get_error()))
            constraint = Constraint(matcher, max(len(self._vocabulary), self._tokenizer.vocab_size))
            self._kept[grammar] = constraint
            if len(self._kept) > _CACHED:
                self._kept.popitem(last=False)
            return constraint


def constrain(
    logprobs: Tensor,
    states: Sequence[ConstraintState | None],
    forbidden: Sequence[Collection[int]],
) -> Tensor:
    """Float32 `[rows, V]` with minus infinity where a row's grammar forbids a token.

    The input itself where no row has a grammar. A row whose grammar fails stays as it is; its state says why.
    """
    masks = {
        row: bits
        for row, state in enumerate(states)
        if state is not None and (bits := state.allowed(forbidden[row])) is not None
    }
    if not masks:
        return logprobs
    packed = np.stack(list(masks.values())).view(np.uint8)
    allowed = np.unpackbits(packed, axis=1, count=logprobs.shape[1], bitorder="little")
    banned = on_device(allowed == 0, logprobs.device)
    if len(masks) == len(states):
        return logprobs.masked_fill(banned, float("-inf"))
    where = on_device(list(masks), logprobs.device)
    return logprobs.index_copy(0, where, logprobs.index_select(0, where).masked_fill_(banned, float("-inf")))


class _Spelling:
    """A vocabulary as llguidance's tokenizer wrapper wants it."""

    def __init__(self, vocabulary: CanonicalVocabulary, eos: Sequence[int]) -> None:
        self.eos_token_id = eos[0] if eos else None
        self.bos_token_id = None
        # Ids without text get a spelling that no text has; a grammar names them by number.
        self.tokens = [
            b"\xff[%d]" % token if spelled is None else spelled
            for token, spelled in enumerate(vocabulary.tokens)
        ]
        self.special_token_ids = [token for token, spelled in enumerate(vocabulary.tokens) if spelled is None]

    def __call__(self, text: bytes) -> list[int]:
        """Nothing is ever forced, so nothing is ever encoded; llguidance tries this once."""
        return []


def _tokenizer(vocabulary: CanonicalVocabulary, eos: Sequence[int]) -> LLTokenizer:
    return LLTokenizer(TokenizerWrapper(_Spelling(vocabulary, eos)), eos_token=list(eos) or None)


def _limits() -> LLParserLimits:
    # About 20 ms to start, 10 ms a step at the very worst, and some ten megabytes of states.
    return LLParserLimits(
        max_items_in_row=2000,
        initial_lexer_fuel=1_000_000,
        step_lexer_fuel=100_000,
        step_max_items=50_000,
        max_lexer_states=10_000,
        max_grammar_size=200_000,
        verbose_errors=False,
    )


def _reason(error: str) -> str:
    """llguidance's message on one line, without the place in our own grammar that it shows."""
    lines = [line for line in error.splitlines() if line.strip(" ^") and not _NOISE.match(line)]
    words = " ".join(" ".join(lines).rpartition("failed to compile JSON schema: ")[2].split())
    return words if " " in words else f"nothing can satisfy it ({words or 'no reason given'})"
