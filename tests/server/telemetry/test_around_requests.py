"""Request ids, logs without secrets, traces, and CORS, which is off unless configured."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from starlette.testclient import TestClient

from server.app import build_app
from server.config import load_config
from server.telemetry.logs import JsonFormatter, TextFormatter
from server.telemetry.request_record import RequestRecord
from server.telemetry.traces import OpenTelemetryTracing
from tests.server.fakes import FakeEngine, FakeSession
from tests.server_process import REPOSITORY, tiny_folders

MakeClient = Callable[..., TestClient]
BODY = {"model": "base:forget", "prompt": "hi"}
# Requests of every outcome; each reply must carry a request id.
REQUESTS: dict[str, tuple[str, dict[str, Any] | None]] = {
    "answered": ("/v1/completions", BODY),
    "streamed": ("/v1/completions", {**BODY, "stream": True}),
    "refused": ("/v1/completions", {**BODY, "n": 0}),
    "unknown": ("/nowhere", None),
    "public": ("/health", None),
}


def send(client: TestClient, path: str, body: dict[str, Any] | None, **headers: str) -> Any:
    return (
        client.get(path, headers=headers) if body is None else client.post(path, json=body, headers=headers)
    )


@pytest.mark.parametrize("name", REQUESTS)
def test_a_clients_id_is_returned(client: TestClient, name: str) -> None:
    path, body = REQUESTS[name]
    reply = send(client, path, body, **{"x-request-id": "job-7:retry.2_b"})
    assert reply.headers["x-request-id"] == "job-7:retry.2_b"


@pytest.mark.parametrize(
    "given",
    [b"", b"a b", b"a\tb", b"x" * 129, b"<script>", b"a;b", "é".encode(), b'"', b"%0d%0aset-cookie:a"],
)
def test_an_id_that_is_unsafe_in_logs_is_replaced(client: TestClient, given: bytes) -> None:
    headers = cast(Any, {b"x-request-id": given})
    made = [client.get("/health", headers=headers).headers["x-request-id"] for _ in range(2)]
    assert len(set(made)) == 2
    assert all(len(one) == 32 and one.isalnum() for one in made)


def test_a_fault_of_the_server_has_an_id_too(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: FakeEngine) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(FakeSession, "adapters", fail)
    reply = client.get("/v1/models", headers={"x-request-id": "mine"})
    assert (reply.status_code, reply.headers["x-request-id"]) == (500, "mine")


def test_the_access_log_describes_the_request(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "server.access")
    client.post("/v1/completions", json=BODY, headers={"x-request-id": "seven"})
    (line,) = caplog.records
    content = json.loads(JsonFormatter().format(line))
    assert content["time"].endswith("+00:00")
    assert {name: content[name] for name in ("level", "request_id", "method", "path", "status")} == {
        "level": "info",
        "request_id": "seven",
        "method": "POST",
        "path": "/v1/completions",
        "status": 200,
    }
    assert (content["model"], content["adapter"]) == ("base", "forget")
    assert (content["prompt_tokens"], content["completion_tokens"]) == (2, 12)
    assert 0 < content["first_token_seconds"] <= content["seconds"]
    text = TextFormatter().format(line)
    assert "POST /v1/completions 200" in text
    assert "request_id=seven" in text


def test_a_fault_is_logged_with_its_traceback() -> None:
    try:
        raise ZeroDivisionError("by nothing")
    except ZeroDivisionError:
        line = logging.LogRecord("server", logging.ERROR, "", 1, "it %s", ("failed",), sys.exc_info())
    assert "by nothing" in json.loads(JsonFormatter().format(line))["exception"]
    assert "Traceback" in TextFormatter().format(line)


@pytest.mark.parametrize("path", ["/a%0Ab", "/a\u2028b", "/%1b[31m", "/" + "x" * 1000])
def test_no_path_breaks_a_line_of_the_log(
    client: TestClient, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    caplog.set_level(logging.INFO, "server.access")
    client.get(path)
    (line,) = caplog.records
    text = TextFormatter().format(line)
    assert text.isascii()
    assert text.isprintable()
    assert len(text) < 600


@contextmanager
def command_line(log: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "server.cli", "serve", "--port", "0", "--device", "cpu", *arguments],
            stderr=errors,
            stdout=subprocess.DEVNULL,
            cwd=REPOSITORY,
            env={**os.environ, "OMP_NUM_THREADS": "1", "TRIMTAB_API_KEY": "from-the-environment"},
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait(10)


def wait_for_address(log: Path, process: subprocess.Popen[bytes]) -> str:
    from tests.server_thread import wait_for

    wait_for(lambda: b"/v1\n" in log.read_bytes() or process.poll() is not None, 60)
    line = next(line for line in log.read_text().splitlines() if "trimtab serves" in line)
    return line.rpartition(" at ")[2].removesuffix("/v1")


def test_neither_keys_nor_prompts_are_logged_by_the_command(tmp_path: Path) -> None:
    """Runs the whole command with its own logging configuration and level."""
    model = tiny_folders(tmp_path)["bytes"]
    log = tmp_path / "log"
    secrets = ("from-the-environment", "the-admins-own", "wrong-key-tried", "my-secret-diary")
    arguments = ("--model", f"m={model}", "--admin-key", "the-admins-own", "--log-json")
    with command_line(log, *arguments) as process:
        url = wait_for_address(log, process)
        with httpx.Client(base_url=url, headers={"authorization": "Bearer from-the-environment"}) as client:
            for body in (
                {"prompt": "my-secret-diary", "max_tokens": 3, "echo": True},
                {"prompt": "my-secret-diary", "max_tokens": -2},
                {"prompt": "my-secret-diary", "my-secret-diary": 1},
                {"prompt": ["my-secret-diary", 5]},
            ):
                client.post("/v1/completions", json={"model": "m", **body})
            client.get("/v1/models?api_key=my-secret-diary")
            headers = {"authorization": "Bearer wrong-key-tried"}
            assert client.get("/v1/models", headers=headers).status_code == 401
            headers = {"authorization": "Bearer the-admins-own"}
            assert client.delete("/v1/adapters/nobody", headers=headers).status_code == 404
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    written = log.read_text()
    for secret in secrets:
        assert secret not in written
    lines = [json.loads(line) for line in written.splitlines() if line.startswith("{")]
    assert [line["status"] for line in lines if "status" in line] == [200, 400, 400, 400, 200, 401, 404]


class Traced:
    """An app that keeps its spans in memory."""

    def __init__(self, engine: FakeEngine) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self._app = build_app(
            load_config(),
            engines={"base": cast(Any, engine)},
            tracing=OpenTelemetryTracing(provider),
        )

    def send(self, path: str, body: dict[str, Any] | None = None, **headers: str) -> Any:
        """Send a request and return its only span."""
        with TestClient(self._app, raise_server_exceptions=False) as client:
            send(client, path, body, **headers)
            (span,) = self._exporter.get_finished_spans()
            return span


def test_a_requests_span_is_a_child_of_the_callers(engine: FakeEngine) -> None:
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    span = Traced(engine).send(
        "/v1/completions",
        {**BODY, "stream": True},
        traceparent=f"00-{trace}-{parent}-01",
        **{"x-request-id": "seven"},
    )
    assert (span.name, span.kind) == ("POST /v1/completions", SpanKind.SERVER)
    assert (f"{span.context.trace_id:x}".zfill(32), f"{span.parent.span_id:x}") == (trace, parent)
    attributes = dict(span.attributes)
    assert attributes["http.response.status_code"] == 200
    assert attributes["gen_ai.request.model"] == "base"
    assert attributes["gen_ai.usage.output_tokens"] == 12
    assert (attributes["trimtab.adapter"], attributes["trimtab.request_id"]) == ("forget", "seven")
    assert not any(value == "hi" for value in attributes.values())


def test_only_faults_of_the_server_are_errors_in_a_trace(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Traced(engine).send("/nowhere").status.status_code is StatusCode.UNSET
    monkeypatch.setattr(FakeSession, "adapters", lambda self: 1 / 0)
    span = Traced(engine).send("/v1/models")
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes["http.response.status_code"] == 500
    assert span.events == ()


ORIGIN = "https://app.example.org"
PREFLIGHT = {
    "origin": ORIGIN,
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization",
}


def test_cors_is_off_unless_configured(client: TestClient) -> None:
    assert client.options("/v1/completions", headers=PREFLIGHT).status_code == 405
    reply = client.get("/health", headers={"origin": ORIGIN})
    assert not [name for name in reply.headers if name.startswith("access-control")]


def test_cors_admits_the_configured_origins(make_client: MakeClient) -> None:
    client = make_client(cors_origin=[ORIGIN], api_key=["key"])
    reply = client.options("/v1/completions", headers=PREFLIGHT)
    assert (reply.status_code, reply.headers["access-control-allow-origin"]) == (200, ORIGIN)
    reply = client.post("/v1/completions", json=BODY, headers={"origin": ORIGIN})
    assert reply.status_code == 401
    assert reply.headers["access-control-allow-origin"] == ORIGIN
    assert "x-trimtab-steering" in reply.headers["access-control-expose-headers"]
    stranger = {**PREFLIGHT, "origin": "https://evil.example.org"}
    reply = client.options("/v1/completions", headers=stranger)
    assert "access-control-allow-origin" not in reply.headers


def test_a_record_leaves_out_missing_values() -> None:
    record = RequestRecord("id", "GET", "/x")
    assert record.as_fields() == {"request_id": "id", "method": "GET", "path": "/x"}
