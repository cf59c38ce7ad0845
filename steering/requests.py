"""Runs many requests through an engine to their ends. The engine batches them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from steering.engine.engine import Engine
from steering.engine.outputs import FinishReason, StepOutput
from steering.engine.request import Request
from steering.session.logprobs import TokenLogprob

Progress = Callable[[int], None]
"""Receives the number of requests that have just ended."""

FoundT = TypeVar("FoundT")


class RequestFailedError(RuntimeError):
    """The engine could not answer a request; the message says why."""


@dataclass(slots=True)
class RequestResult:
    """The outputs of the engine for one request, so far.

    `prompt` has the log probabilities of a scored prompt. `changed` and `kl` are summed over the tokens, as in
    `StepOutput`.
    """

    tokens: list[int] = field(default_factory=list)
    prompt: tuple[TokenLogprob | None, ...] = ()
    changed: int = 0
    kl: float = 0.0
    finish_reason: FinishReason | None = None

    def take(self, output: StepOutput) -> None:
        """Add one step's output. Raises `RequestFailedError` if it is an error."""
        if output.finish_reason == "error":
            raise RequestFailedError(output.error or "the engine gave up on a request")
        self.tokens += output.token_ids
        self.prompt = output.prompt_logprobs or self.prompt
        self.changed += output.changed
        self.kl += output.kl or 0.0
        self.finish_reason = output.finish_reason


def run_requests(
    engine: Engine,
    requests: Sequence[Request],
    finish: Callable[[int, RequestResult], FoundT],
    progress: Progress | None = None,
) -> list[FoundT]:
    """Run all requests. `finish` gets each one's place and result as it ends, and makes the value to return for it.

    Raises `RequestFailedError` at the first request that fails, after aborting the others.
    """
    places: dict[str, int] = {}
    running: dict[str, RequestResult] = {}
    found: dict[int, FoundT] = {}
    try:
        for place, request in enumerate(requests):
            engine.add_request(request)
            places[request.request_id], running[request.request_id] = place, RequestResult()
        while engine.has_work:
            for output in engine.step():
                name = output.request_id
                running[name].take(output)
                if output.finish_reason is not None:
                    # Finished at once, because the log probabilities of a scored prompt take much memory.
                    found[places[name]] = finish(places[name], running.pop(name))
                    if progress is not None:
                        progress(1)
    except BaseException:
        for name in running:
            engine.abort(name)
        engine.step()
        raise
    return [found[place] for place in range(len(requests))]
