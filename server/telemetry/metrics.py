"""The server's Prometheus metrics: one registry an app, so that several apps can live in one process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from server.engines.observer import Observer
from server.engines.worker import EngineWorker
from server.names import NONE, SEVERAL
from server.telemetry.request_record import CURRENT
from steering.engine.step_report import StepReport
from steering.types import EngineStats

_FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_SLOW = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
_NATS = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
_STEP = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_LABELS = ("model", "adapter")


class MetricDescription(NamedTuple):
    """What there is to know of a metric beside its values; `name` without a counter's `_total`."""

    name: str
    kind: str
    labels: tuple[str, ...]
    text: str


class _EngineCollector(Collector):
    """Reads the engines' own gauges and counters when they are asked for, instead of copying them at each step."""

    def __init__(self, workers: Mapping[str, EngineWorker]) -> None:
        self._workers = workers

    def collect(self) -> Iterable[Metric]:
        running = _gauge("num_requests_running", "sequences that run", _LABELS)
        waiting = _gauge("num_requests_waiting", "sequences that wait", _LABELS)
        for model, worker in self._workers.items():
            loads = worker.load()
            # Zero for those that idle, so that a graph of them goes down to it.
            for adapter in sorted({NONE, *worker.engine.adapters(), *loads[0], *loads[1]}):
                running.add_metric([model, adapter], loads[0][adapter])
                waiting.add_metric([model, adapter], loads[1][adapter])
        return [running, waiting, *self._engines()]

    def _engines(self) -> Iterable[Metric]:
        families: list[tuple[GaugeMetricFamily | CounterMetricFamily, Callable[[EngineStats], float]]] = [
            (
                _gauge("kv_cache_usage_ratio", "share of the pages in use, 0 to 1", ("model",)),
                lambda s: s.kv_pages_used / max(1, s.kv_pages_total),
            ),
            (_counter("prefix_cache_queries", "prompt tokens looked up"), lambda s: s.prefix_cache_queries),
            (_counter("prefix_cache_hits", "prompt tokens found"), lambda s: s.prefix_cache_hits),
            (_counter("preemptions", "sequences put back to wait"), lambda s: s.preemptions),
            (
                _counter("history_reencoded_tokens", "steering tokens taken back and encoded anew"),
                lambda s: s.history_reencoded_tokens,
            ),
        ]
        for model, worker in self._workers.items():
            for family, value in families:
                family.add_metric([model], value(worker.stats))
        return [family for family, _ in families]


def _gauge(name: str, text: str, labels: tuple[str, ...]) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"trimtab_{name}", text, labels=labels)


def _counter(name: str, text: str) -> CounterMetricFamily:
    return CounterMetricFamily(f"trimtab_{name}", text, labels=["model"])


class Metrics(Observer):
    """What the server itself counts; event loop only.

    The label `adapter` is a loaded name, `none` or `several`, so that no client can make new ones.
    """

    def __init__(self, workers: Mapping[str, EngineWorker]) -> None:
        self._registry = CollectorRegistry()
        self._declared: list[Counter | Histogram] = []
        self._registry.register(_EngineCollector(workers))
        self._workers = workers
        self._seen: set[str] = set()
        self._prompt = self._counter("prompt_tokens", "prompt tokens", _LABELS)
        self._generated = self._counter("generation_tokens", "generated tokens", _LABELS)
        self._success = self._counter("request_success", "finished sequences", (*_LABELS, "finish_reason"))
        self._errors = self._counter("request_errors", "replies that are errors", ("code",))
        self._changed = self._counter(
            "steering_changed_tokens", "tokens whose steered argmax is not the base's", _LABELS
        )
        self._first = self._histogram("time_to_first_token_seconds", "from arrival to the first token", _SLOW)
        self._between = self._histogram("inter_token_latency_seconds", "between a sequence's tokens", _FAST)
        self._whole = self._histogram(
            "e2e_request_latency_seconds", "from arrival to a sequence's end", _SLOW
        )
        self._queue = self._histogram(
            "request_queue_time_seconds", "from arrival to a sequence's first step", _SLOW
        )
        self._divergence = self._histogram(
            "steering_kl_divergence", "KL(steered || base) in nats, of every eighth token", _NATS
        )
        self._step = self._histogram(
            "step_seconds", "the engine's thread by phase of a step", _STEP, ("model", "phase")
        )
        self._by_adapter = (
            *(self._prompt, self._generated, self._success, self._changed),
            *(self._first, self._between, self._whole, self._queue, self._divergence),
        )

    def _counter(self, name: str, text: str, labels: tuple[str, ...]) -> Counter:
        counter = Counter(f"trimtab_{name}", text, labels, registry=self._registry)
        self._declared.append(counter)
        return counter

    def _histogram(
        self, name: str, text: str, buckets: tuple[float, ...], labels: tuple[str, ...] = _LABELS
    ) -> Histogram:
        histogram = Histogram(f"trimtab_{name}", text, labels, registry=self._registry, buckets=buckets)
        self._declared.append(histogram)
        return histogram

    def count_error(self, code: int) -> None:
        """One reply was an error with this HTTP status."""
        self._errors.labels(str(code)).inc()

    def admitted(self, model: str, adapter: str, prompt_tokens: int) -> None:
        """A request was admitted."""
        _note(model=model, adapter=adapter, prompt_tokens=prompt_tokens)
        self._seen.add(adapter)
        self._prompt.labels(model, adapter).inc(prompt_tokens)

    def first_token(self, model: str, adapter: str, seconds: float) -> None:
        """A sequence's first token came `seconds` after the request."""
        _note(first_token_seconds=round(seconds, 6))
        self._first.labels(model, adapter).observe(seconds)

    def next_token(self, model: str, adapter: str, seconds: float) -> None:
        """A later token came `seconds` after the one before."""
        self._between.labels(model, adapter).observe(seconds)

    def started(self, name: str, adapter: str, seconds: float) -> None:
        """A sequence runs for the first time, `seconds` after its request arrived."""
        self._queue.labels(name, adapter).observe(seconds)

    def stepped(self, name: str, report: StepReport) -> None:
        """A step of the engine `name` has ended."""
        for phase, seconds in report.seconds.items() if any(report.seconds.values()) else ():
            self._step.labels(name, phase).observe(seconds)

    def gained(self, model: str, adapter: str, tokens: int, changed: int, kl: float | None) -> None:
        """A step gave a sequence `tokens` tokens, `changed` of them by steering; `kl` where it was measured."""
        self._seen.add(adapter)
        self._generated.labels(model, adapter).inc(tokens)
        _note_tokens(tokens)
        if adapter != NONE and tokens:
            self._changed.labels(model, adapter).inc(changed)
            if kl is not None:
                self._divergence.labels(model, adapter).observe(kl)

    def finished(self, model: str, adapter: str, reason: str, seconds: float) -> None:
        """A sequence ended `seconds` after its request arrived."""
        self._seen.add(adapter)
        self._success.labels(model, adapter, reason).inc()
        self._whole.labels(model, adapter).observe(seconds)

    def described(self) -> Iterator[MetricDescription]:
        """Every metric that there can be, whether or not anything was measured yet."""
        families: Iterable[Any] = _EngineCollector({}).collect()
        for family in families:
            yield MetricDescription(family.name, family.type, family._labelnames, family.documentation)
        for metric in self._declared:
            family = next(iter(metric.describe()))
            yield MetricDescription(family.name, family.type, metric._labelnames, family.documentation)

    def render(self) -> bytes:
        """The exposition text, version 0.0.4.

        The series of adapters that are no longer loaded are in it once more, and then gone.
        """
        text = generate_latest(self._registry)
        known = {NONE, SEVERAL}
        for worker in self._workers.values():
            known.update(worker.engine.adapters(), *worker.load())
        for adapter in self._seen - known:
            for metric in self._by_adapter:
                metric.remove_by_labels({"adapter": adapter})
        self._seen &= known
        return text


def _note(**fields: str | int | float) -> None:
    """Adds what is new to the running request's record, for its log line and its trace."""
    record = CURRENT.get()
    if record is not None:
        record.fields = fields | record.fields


def _note_tokens(count: int) -> None:
    record = CURRENT.get()
    if record is not None:
        record.fields["completion_tokens"] = int(record.fields.get("completion_tokens", 0)) + count
