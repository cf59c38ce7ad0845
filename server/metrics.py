"""The server's Prometheus metrics: one registry an app, so that several apps can live in one process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from steering.types import EngineStats, ResolvedSteering

_FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_SLOW = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
_NATS = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
_LABELS = ("model", "adapter")


def adapter_label(steering: Iterable[ResolvedSteering]) -> str:
    """The label of what steers a request: loaded names only, so that no client can make new ones."""
    return "+".join(sorted(spec.adapter for spec in steering)) or "none"


class _EngineCollector(Collector):
    """Reads the engines' own gauges and counters when they are asked for, instead of copying them at each step."""

    def __init__(self, read: Callable[[], Mapping[str, EngineStats]]) -> None:
        self._read = read

    def collect(self) -> Iterable[Metric]:
        families: list[tuple[GaugeMetricFamily | CounterMetricFamily, Callable[[EngineStats], float]]] = [
            (_gauge("num_requests_running", "sequences that run"), lambda s: s.running),
            (_gauge("num_requests_waiting", "sequences that wait"), lambda s: s.waiting),
            (
                _gauge("kv_cache_usage_ratio", "share of the pages in use, 0 to 1"),
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
        for model, stats in self._read().items():
            for family, value in families:
                family.add_metric([model], value(stats))
        return [family for family, _ in families]


def _gauge(name: str, text: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"trimtab_{name}", text, labels=["model"])


def _counter(name: str, text: str) -> CounterMetricFamily:
    return CounterMetricFamily(f"trimtab_{name}", text, labels=["model"])


class Metrics:
    """What the server itself counts; event loop only."""

    def __init__(self, engine_stats: Callable[[], Mapping[str, EngineStats]]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_EngineCollector(engine_stats))
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
        self._divergence = self._histogram(
            "steering_kl_divergence", "KL(steered || base), nats a token", _NATS
        )

    def _counter(self, name: str, text: str, labels: tuple[str, ...]) -> Counter:
        return Counter(f"trimtab_{name}", text, labels, registry=self._registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"trimtab_{name}", text, _LABELS, registry=self._registry, buckets=buckets)

    def count_error(self, code: int) -> None:
        """One reply was an error with this HTTP status."""
        self._errors.labels(str(code)).inc()

    def admitted(self, model: str, adapter: str, prompt_tokens: int) -> None:
        """A request was admitted."""
        self._prompt.labels(model, adapter).inc(prompt_tokens)

    def first_token(self, model: str, adapter: str, seconds: float) -> None:
        """A sequence's first token came `seconds` after the request."""
        self._first.labels(model, adapter).observe(seconds)

    def next_token(self, model: str, adapter: str, seconds: float) -> None:
        """A later token came `seconds` after the one before."""
        self._between.labels(model, adapter).observe(seconds)

    def stepped(self, model: str, adapter: str, tokens: int, changed: int, kl: float) -> None:
        """A step gave a sequence `tokens` tokens; `changed` and `kl` are sums over them."""
        self._generated.labels(model, adapter).inc(tokens)
        if adapter != "none" and tokens:
            self._changed.labels(model, adapter).inc(changed)
            for _ in range(tokens):
                self._divergence.labels(model, adapter).observe(kl / tokens)

    def finished(self, model: str, adapter: str, reason: str, seconds: float) -> None:
        """A sequence ended `seconds` after its request arrived."""
        self._success.labels(model, adapter, reason).inc()
        self._whole.labels(model, adapter).observe(seconds)

    def render(self) -> bytes:
        """The exposition text, version 0.0.4."""
        return generate_latest(self._registry)
