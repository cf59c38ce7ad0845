"""The server's Prometheus metrics. Each app has its own registry, so that one process can hold several apps."""

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
from steering.engine.outputs import EngineStats
from steering.engine.step_report import StepReport

_FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_SLOW = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
_NATS = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
_STEP = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_LABELS = ("model", "adapter")


class MetricDescription(NamedTuple):
    """A metric without its values; `name` lacks a counter's `_total`."""

    name: str
    kind: str
    labels: tuple[str, ...]
    text: str


class _EngineCollector(Collector):
    """Reads the engines' own gauges and counters at each scrape, so that nothing is copied at each step."""

    def __init__(self, workers: Mapping[str, EngineWorker]) -> None:
        self._workers = workers

    def collect(self) -> Iterable[Metric]:
        running = _gauge("num_requests_running", "running sequences", _LABELS)
        waiting = _gauge("num_requests_waiting", "waiting sequences", _LABELS)
        for model, worker in self._workers.items():
            loads = worker.load()
            # An idle adapter reports 0, so that its graph returns to 0 instead of ending.
            for adapter in sorted({NONE, *worker.engine.session.adapters(), *loads[0], *loads[1]}):
                running.add_metric([model, adapter], loads[0][adapter])
                waiting.add_metric([model, adapter], loads[1][adapter])
        return [running, waiting, *self._engines()]

    def _engines(self) -> Iterable[Metric]:
        families: list[tuple[GaugeMetricFamily | CounterMetricFamily, Callable[[EngineStats], float]]] = [
            (
                _gauge("kv_cache_usage_ratio", "share of the key/value pages in use, 0 to 1", ("model",)),
                lambda s: s.kv_pages_used / max(1, s.kv_pages_total),
            ),
            (
                _counter("prefix_cache_queries", "prompt tokens looked up in the prefix cache"),
                lambda s: s.prefix_cache_queries,
            ),
            (
                _counter("prefix_cache_hits", "prompt tokens found in the prefix cache"),
                lambda s: s.prefix_cache_hits,
            ),
            (
                _counter("preemptions", "running sequences that were put back into the queue"),
                lambda s: s.preemptions,
            ),
            (
                _counter("history_reencoded_tokens", "steering tokens that were removed and encoded again"),
                lambda s: s.history_reencoded_tokens,
            ),
        ]
        restarts = _counter("engine_restarts", "restarts of the engine after a fault")
        for model, worker in self._workers.items():
            for family, value in families:
                family.add_metric([model], value(worker.stats))
            restarts.add_metric([model], worker.restarts.count)
        return [*(family for family, _ in families), restarts]


def _gauge(name: str, text: str, labels: tuple[str, ...]) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"trimtab_{name}", text, labels=labels)


def _counter(name: str, text: str) -> CounterMetricFamily:
    return CounterMetricFamily(f"trimtab_{name}", text, labels=["model"])


class Metrics(Observer):
    """The metrics that the server itself counts. Not thread-safe: used on the event loop only.

    The label `adapter` is the name of a loaded adapter, `none` or `several`, so that no client can create labels.
    """

    def __init__(self, workers: Mapping[str, EngineWorker], *more: Collector) -> None:
        """`more` are collectors whose metrics are rendered beside the server's own."""
        self._registry = CollectorRegistry()
        self._declared: list[Counter | Histogram] = []
        for collector in (_EngineCollector(workers), *more):
            self._registry.register(collector)
        self._workers = workers
        self._seen: set[str] = set()
        self._prompt = self._counter("prompt_tokens", "prompt tokens", _LABELS)
        self._generated = self._counter("generation_tokens", "generated tokens", _LABELS)
        self._success = self._counter("request_success", "finished sequences", (*_LABELS, "finish_reason"))
        self._errors = self._counter("request_errors", "error replies", ("code",))
        self._changed = self._counter(
            "steering_changed_tokens", "tokens whose steered argmax differs from the base's", _LABELS
        )
        self._first = self._histogram(
            "time_to_first_token_seconds", "time from a request's arrival to the first token", _SLOW
        )
        self._between = self._histogram(
            "inter_token_latency_seconds", "time between a sequence's tokens", _FAST
        )
        self._whole = self._histogram(
            "e2e_request_latency_seconds", "time from a request's arrival to a sequence's end", _SLOW
        )
        self._queue = self._histogram(
            "request_queue_time_seconds", "time from a request's arrival to a sequence's first step", _SLOW
        )
        self._divergence = self._histogram(
            "steering_kl_divergence", "KL(steered || base) in nats, at every eighth token", _NATS
        )
        self._step = self._histogram(
            "step_seconds", "time of the engine's thread in each phase of a step", _STEP, ("model", "phase")
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
        """Count an error reply by its HTTP status."""
        self._errors.labels(str(code)).inc()

    def admitted(self, model: str, adapter: str, prompt_tokens: int) -> None:
        """Count the prompt tokens of an admitted request."""
        _note(model=model, adapter=adapter, prompt_tokens=prompt_tokens)
        self._seen.add(adapter)
        self._prompt.labels(model, adapter).inc(prompt_tokens)

    def first_token(self, model: str, adapter: str, seconds: float) -> None:
        """Record that a sequence's first token came `seconds` after the request's arrival."""
        _note(first_token_seconds=round(seconds, 6))
        self._first.labels(model, adapter).observe(seconds)

    def next_token(self, model: str, adapter: str, seconds: float) -> None:
        """Record that a token came `seconds` after the sequence's previous token."""
        self._between.labels(model, adapter).observe(seconds)

    def started(self, name: str, adapter: str, seconds: float) -> None:
        """Record that a sequence first ran `seconds` after its request arrived."""
        self._queue.labels(name, adapter).observe(seconds)

    def stepped(self, name: str, report: StepReport) -> None:
        """Record the seconds in each phase of a step of the engine `name`."""
        for phase, seconds in report.seconds.items() if any(report.seconds.values()) else ():
            self._step.labels(name, phase).observe(seconds)

    def gained(self, model: str, adapter: str, tokens: int, changed: int, kl: float | None) -> None:
        """Count a step's `tokens` tokens of a sequence, `changed` of them by steering; `kl` is None if not measured."""
        self._seen.add(adapter)
        self._generated.labels(model, adapter).inc(tokens)
        _note_tokens(tokens)
        if adapter != NONE and tokens:
            self._changed.labels(model, adapter).inc(changed)
            if kl is not None:
                self._divergence.labels(model, adapter).observe(kl)

    def finished(self, model: str, adapter: str, reason: str, seconds: float) -> None:
        """Record that a sequence ended `seconds` after its request arrived."""
        self._seen.add(adapter)
        self._success.labels(model, adapter, reason).inc()
        self._whole.labels(model, adapter).observe(seconds)

    def described(self) -> Iterator[MetricDescription]:
        """Every metric, including those without a value so far."""
        families: Iterable[Any] = _EngineCollector({}).collect()
        for family in families:
            yield MetricDescription(family.name, family.type, family._labelnames, family.documentation)
        for metric in self._declared:
            family = next(iter(metric.describe()))
            yield MetricDescription(family.name, family.type, metric._labelnames, family.documentation)

    def render(self) -> bytes:
        """The metrics in Prometheus's text format, version 0.0.4.

        The series of an adapter that is no longer loaded appear once more, and are then removed.
        """
        text = generate_latest(self._registry)
        known = {NONE, SEVERAL}
        for worker in self._workers.values():
            known.update(worker.engine.session.adapters(), *worker.load())
        for adapter in self._seen - known:
            for metric in self._by_adapter:
                metric.remove_by_labels({"adapter": adapter})
        self._seen &= known
        return text


def _note(**fields: str | int | float) -> None:
    """Add fields to the current request's record, for its log line and trace; the first value of a field stays."""
    record = CURRENT.get()
    if record is not None:
        record.fields = fields | record.fields


def _note_tokens(count: int) -> None:
    """Add to the current request's count of generated tokens."""
    record = CURRENT.get()
    if record is not None:
        record.fields["completion_tokens"] = int(record.fields.get("completion_tokens", 0)) + count
