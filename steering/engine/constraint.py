"""Grammars that a generation must follow: a mask over the base's tokens at every step.

The grammars are llguidance's (Lark with JSON schemas inside). The mask applies to the *fused* distribution, so steering
and grammars work together. A row without a grammar costs nothing.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper
from llguidance.numpy import fill_next_token_bitmask
from numpy.typing import NDArray

from mapping_cache import CanonicalVocabulary

if TYPE_CHECKING:
    from torch import Tensor

_CACHED = 16
_NOISE = re.compile(r"\s*(\d+ \||<non-verbose/>)")
_HEADER = '%llguidance {"no_forcing": true}\n'
"""Where a grammar allows only one text, any tokens that spell it are allowed, not just one spelling."""


class ConstraintError(ValueError):
    """A grammar that cannot be compiled, or that exceeds the limits."""


class ConstraintState:
    """The position of one sequence in its grammar. The engine's thread only."""

    def __init__(self, matcher: LLMatcher, vocab_size: int) -> None:
        self._matcher = matcher
        self._bits: NDArray[np.int32] = np.zeros((1, (vocab_size + 31) // 32), dtype=np.int32)
        self._read = 0
        self.error: str | None = None

    def follow(self, generated: Sequence[int]) -> bool:
        """Read the new ones of the tokens after the prompt. Returns True when the grammar is complete."""
        for token in generated[self._read :]:
            if self.error is None and not self._matcher.consume_token(token):
                self.error = self._fault("a token outside the grammar was drawn")
            self._read += 1
        return self.error is None and self._matcher.is_stopped()

    def allowed(self, forbidden: Collection[int]) -> NDArray[np.int32] | None:
        """The next token's mask, int32 `[ceil(V / 32)]` of bits; None with `error` set where no token is allowed.

        `forbidden` tokens are left out, unless no other token is possible: a complete grammar ends a generation before
        its `min_tokens`.
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
    """A compiled grammar. Immutable, and shared by all sequences that follow it. Any thread."""

    def __init__(self, matcher: LLMatcher, vocab_size: int) -> None:
        self._matcher = matcher
        self._vocab_size = vocab_size
        self._lock = threading.Lock()

    def start(self) -> ConstraintState:
        """The state at the start of a generation."""
        with self._lock:
            return ConstraintState(self._matcher.deep_copy(), self._vocab_size)


class ConstraintCompiler:
    """Compiles grammars for one base's vocabulary and keeps the latest ones. Any thread.

    The first use takes about half a second for a vocabulary of 128,000 tokens. llguidance's own limits bound compiling
    to some hundred milliseconds, most of them without Python's lock.
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
            # Some grammars compile but exceed the limits at the first mask.
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
    """The scores float32 `[rows, V]` with minus infinity where a row's grammar forbids a token.

    Returns the input itself where no row has a grammar. A row whose grammar fails keeps its scores, and its state's
    `error` is set.
    """
    # Late, because a process that only compiles grammars starts in a third of the time without torch.
    from steering.device.transfer import on_device

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


class _TokenTable:
    """A vocabulary in the form that llguidance's tokenizer wrapper expects."""

    def __init__(self, vocabulary: CanonicalVocabulary, eos: Sequence[int]) -> None:
        self.eos_token_id = eos[0] if eos else None
        self.bos_token_id = None
        # Ids without text get bytes that no text has. A grammar names them by number.
        self.tokens = [
            b"\xff[%d]" % token if content is None else content
            for token, content in enumerate(vocabulary.tokens)
        ]
        self.special_token_ids = [token for token, content in enumerate(vocabulary.tokens) if content is None]

    def __call__(self, text: bytes) -> list[int]:
        """llguidance calls this once. No token is ever forced, so no text needs encoding."""
        return []


def _tokenizer(vocabulary: CanonicalVocabulary, eos: Sequence[int]) -> LLTokenizer:
    return LLTokenizer(TokenizerWrapper(_TokenTable(vocabulary, eos)), eos_token=list(eos) or None)


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
    """llguidance's message on one line, without the excerpt of the grammar."""
    lines = [line for line in error.splitlines() if line.strip(" ^") and not _NOISE.match(line)]
    words = " ".join(" ".join(lines).rpartition("failed to compile JSON schema: ")[2].split())
    return words if " " in words else f"nothing can satisfy it ({words or 'no reason given'})"
