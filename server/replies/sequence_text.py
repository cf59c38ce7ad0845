"""The text of one sequence, as far as the client may see it."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

from mapping_cache import CanonicalVocabulary
from server.intake.plan import Prompt
from server.replies.stop_strings import StopMatcher
from steering.crossing.text import TextStream
from steering.engine.outputs import StepOutput
from steering.session.logprobs import TokenLogprob

ClientFinish = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class PlacedToken:
    """A generated or prompt token, and the character of the reply's text at which its own text begins.

    `logprob` is None for the first token of a prompt, which nothing precedes.
    """

    token_id: int
    offset: int
    logprob: TokenLogprob | None


@dataclass(frozen=True, slots=True)
class Delta:
    """The text and tokens that one step adds to an answer; for a whole answer, those of all steps.

    `stop_reason` is the stop string that ended the answer, if one did. The first `echoed` tokens are the prompt's.
    """

    index: int
    text: str
    tokens: tuple[PlacedToken, ...] = ()
    finish_reason: ClientFinish | None = None
    stop_reason: str | None = None
    echoed: int = 0
    prompt_logprobs: tuple[TokenLogprob | None, ...] | None = None

    @property
    def token_ids(self) -> list[int]:
        """The ids of the answer's tokens, without an echoed prompt."""
        return [token.token_id for token in self.tokens[self.echoed :]]


class SequenceText:
    """Detokenizes one sequence and ends it at a stop string.

    Text that may begin a stop string is held back. A token is held back with its text, because its logprob entry names
    it. `shown` maps special tokens to text: those that a reader of tool calls must see, although they have no text. The
    token that ends the sequence is shown only with `include_stop`.
    """

    def __init__(
        self,
        vocabulary: CanonicalVocabulary,
        prompt: Prompt,
        stops: Sequence[str] = (),
        *,
        include_stop: bool = False,
        min_tokens: int = 0,
        echo: bool = False,
        shown: Mapping[int, str] | None = None,
    ) -> None:
        self._stream = TextStream(vocabulary)
        self._prompt = prompt
        # The stream reads the prompt first: the prompt may end within a character, and only at the very beginning of a
        # text does a SentencePiece tokenizer drop a space.
        pieces = [self._stream.push((token_id,)) for token_id in prompt.ids]
        self._prompt_offsets = tuple(accumulate((len(piece) for piece in pieces), initial=0))
        self._prompt_text = "".join(pieces) if prompt.text is None else prompt.text
        self._matcher = StopMatcher(stops, include=include_stop)
        self._include_stop = include_stop
        self._min_tokens = min_tokens
        self._shown = shown or {}
        # Tokens that are held back, each with the character at which its text ends.
        self._waiting: deque[tuple[PlacedToken, int]] = deque()
        # Characters of the reply's text that were read from tokens, and those that were passed on.
        self._read = self._passed = len(self._prompt_text) if echo else 0
        self.generated = 0
        self.finished = False

    def echo_delta(self, index: int, logprobs: Sequence[TokenLogprob | None] | None) -> Delta:
        """The prompt as the beginning of the reply, with its tokens where `logprobs` are given."""
        tokens = tuple(
            PlacedToken(token_id, offset, logprob)
            for token_id, offset, logprob in zip(
                self._prompt.ids, self._prompt_offsets, logprobs or (), strict=False
            )
        )
        return Delta(index, self._prompt_text, tokens, echoed=len(tokens))

    def advance(self, index: int, output: StepOutput) -> Delta | None:
        """The delta of one step's output; None where nothing may be passed on yet."""
        parts: list[str] = []
        for position, token_id in enumerate(output.token_ids):
            if self._matcher.matched is not None:
                break
            self.generated += 1
            ends = output.finish_reason == "stop" and position == len(output.token_ids) - 1
            shown = "" if ends and not self._include_stop else self._shown.get(token_id, "")
            piece = self._stream.push((token_id,)) + shown
            logprob = output.logprobs[position] if output.logprobs else None
            self._waiting.append((PlacedToken(token_id, self._read, logprob), self._read + len(piece)))
            self._read += len(piece)
            parts.append(self._match(piece))
        if self._matcher.matched is None and output.finish_reason is not None:
            parts.append(self._match(self._stream.finish()))
            parts.append(self._matcher.finish())
        return self._delta(index, "".join(parts), output)

    def _match(self, piece: str) -> str:
        return self._matcher.push(piece, armed=self.generated >= self._min_tokens)

    def _delta(self, index: int, text: str, output: StepOutput) -> Delta | None:
        self._passed += len(text)
        stopped = self._matcher.matched is not None
        finish: ClientFinish | None = None
        if stopped or output.finish_reason == "stop":
            finish = "stop"
        elif output.finish_reason is not None:
            finish = "length"
        self.finished = finish is not None
        tokens = self._release(stopped)
        if not text and not tokens and finish is None:
            return None
        return Delta(index, text, tokens, finish, self._matcher.matched)

    def _release(self, stopped: bool) -> tuple[PlacedToken, ...]:
        """The waiting tokens whose text has been passed on; after a stop string, the rest is dropped."""
        released: list[PlacedToken] = []
        while self._waiting:
            token, end = self._waiting[0]
            if stopped and token.offset >= self._passed:
                self._waiting.clear()
                break
            # A token that adds no text, such as half a character, waits for the text that it is part of.
            if not self.finished and (end > self._passed or token.offset >= self._passed):
                break
            released.append(token)
            self._waiting.popleft()
        return tuple(released)
