"""OpenTelemetry traces: a span for each request, below the caller's own where it sends one. The extra `otel`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

from server.telemetry.request_record import RequestRecord


class Tracing(Protocol):
    """Who makes the spans."""

    def span(self, record: RequestRecord, headers: Mapping[str, str]) -> AbstractContextManager[None]:
        """A span around a request, with what `record` knows at its end."""

    def close(self) -> None:
        """Sends what is still to be sent."""


class NoTracing:
    """Makes none."""

    def span(self, record: RequestRecord, headers: Mapping[str, str]) -> AbstractContextManager[None]:
        """Nothing."""
        return nullcontext()

    def close(self) -> None:
        """Nothing."""


class OpenTelemetryTracing:
    """Spans through an OpenTelemetry tracer provider, its own by default: where and how is what `OTEL_*` says.

    Raises ImportError without the extra `otel`.
    """

    def __init__(self, provider: Any = None) -> None:
        from opentelemetry import propagate, trace

        self._extract = propagate.extract
        self._trace = trace
        self._provider = _provider() if provider is None else provider
        self._tracer = self._provider.get_tracer("trimtab")

    @contextmanager
    def span(self, record: RequestRecord, headers: Mapping[str, str]) -> Iterator[None]:
        """See `Tracing.span`; attributes are named by OpenTelemetry's conventions where it has some."""
        with self._tracer.start_as_current_span(
            f"{record.method} {record.path}",
            context=self._extract(dict(headers)),
            kind=self._trace.SpanKind.SERVER,
            record_exception=False,
        ) as span:
            try:
                yield
            finally:
                span.set_attributes(_attributes(record))
                if record.status is None or record.status >= 500:
                    span.set_status(self._trace.StatusCode.ERROR)

    def close(self) -> None:
        """See `Tracing.close`."""
        self._provider.shutdown()


_CONVENTIONAL = {
    "method": "http.request.method",
    "path": "url.path",
    "status": "http.response.status_code",
    "model": "gen_ai.request.model",
    "prompt_tokens": "gen_ai.usage.input_tokens",
    "completion_tokens": "gen_ai.usage.output_tokens",
    "first_token_seconds": "gen_ai.server.time_to_first_token",
}


def _attributes(record: RequestRecord) -> dict[str, str | int | float]:
    return {
        _CONVENTIONAL.get(name, f"trimtab.{name}"): value
        for name, value in record.as_fields().items()
        if name != "seconds"
    }


def _provider() -> Any:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    name = os.environ.get("OTEL_SERVICE_NAME", "trimtab")
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: name}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider
