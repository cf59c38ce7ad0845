"""OpenTelemetry traces: a span for each request, a child of the caller's span if it sends one. Extra: `otel`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

from server.telemetry.request_record import RequestRecord


class Tracing(Protocol):
    """Makes a span for each request."""

    def span(self, record: RequestRecord, headers: Mapping[str, str]) -> AbstractContextManager[None]:
        """A span around a request; at its end it takes the fields of `record` as attributes."""

    def close(self) -> None:
        """Send the remaining spans and stop."""


class NoTracing:
    """Makes no spans."""

    def span(self, record: RequestRecord, headers: Mapping[str, str]) -> AbstractContextManager[None]:
        """Makes no span."""
        return nullcontext()

    def close(self) -> None:
        """Has nothing to send."""


class OpenTelemetryTracing:
    """Makes spans with an OpenTelemetry tracer provider, by default one that the `OTEL_*` variables configure.

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
        """A span whose attributes follow OpenTelemetry's naming conventions where these have a name."""
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
        """Send the remaining spans and shut the provider down."""
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
