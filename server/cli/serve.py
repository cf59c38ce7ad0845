"""`trimtab serve`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from server.cli.loading import load_with_progress
from server.cli.options import (
    Adapters,
    ConfigFile,
    Device,
    Dtype,
    MaxModelLen,
    Models,
    console,
    settings,
)
from server.telemetry.logs import setup_logging

if TYPE_CHECKING:
    from server.service import Service


def _announce(service: Service, url: str) -> None:
    names = [
        name if adapter is None else f"{name}:{adapter}"
        for name, base in service.bases.items()
        for adapter in (None, *base.engine.adapters())
    ]
    console.print(f"trimtab serves {', '.join(names)} at {url}/v1", highlight=False, soft_wrap=True)


def serve(
    config: ConfigFile = None,
    model: Models = None,
    adapter: Adapters = None,
    adapters_dir: Annotated[
        list[str] | None, typer.Option(help="A directory that adapters may be loaded from at run time.")
    ] = None,
    host: Annotated[str | None, typer.Option(help="Where to listen; 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(help="Where to listen; 8000.")] = None,
    api_key: Annotated[
        list[str] | None, typer.Option(help="A key that clients must bear; several may do.")
    ] = None,
    admin_key: Annotated[
        str | None, typer.Option(help="The key for changing adapters; without one nobody can.")
    ] = None,
    cors_origin: Annotated[
        list[str] | None, typer.Option(help="A web origin whose pages may call the server; '*' is any.")
    ] = None,
    device: Device = None,
    dtype: Dtype = None,
    max_model_len: MaxModelLen = None,
    max_num_seqs: Annotated[int | None, typer.Option(help="The most sequences that run at once; 32.")] = None,
    max_queue: Annotated[
        int | None, typer.Option(help="The most sequences that wait beyond those; 256.")
    ] = None,
    max_body_bytes: Annotated[str | None, typer.Option(help="Of one request's body; 8MiB.")] = None,
    max_prompt_bytes: Annotated[str | None, typer.Option(help="Of one prompt's text; 1MiB.")] = None,
    max_backlog: Annotated[
        int | None, typer.Option(help="Outputs of a sequence that may wait for a slow client; 1024.")
    ] = None,
    body_timeout: Annotated[
        float | None, typer.Option(help="Seconds that a request's body may take to arrive; 30.")
    ] = None,
    request_timeout: Annotated[
        float | None, typer.Option(help="Seconds from a request's arrival to its reply's end; 600.")
    ] = None,
    send_timeout: Annotated[
        float | None, typer.Option(help="Seconds that a client may take nothing of its reply; 30.")
    ] = None,
    kv_cache_memory: Annotated[str | None, typer.Option(help="For each base's pages, as in 2GiB.")] = None,
    enforce_eager: Annotated[
        bool | None, typer.Option("--enforce-eager", help="Record no passes on a GPU, and run none ahead.")
    ] = None,
    shutdown_timeout: Annotated[
        float | None, typer.Option(help="Seconds that running requests are given; 30.")
    ] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error; info.")] = None,
    log_json: Annotated[bool | None, typer.Option("--log-json", help="Log one JSON object a line.")] = None,
    traces: Annotated[
        bool | None,
        typer.Option("--traces", help="Send OpenTelemetry traces where the OTEL_* variables say."),
    ] = None,
) -> None:
    """Serve bases and the adapters that steer them over an OpenAI-style API."""
    given = {name: value for name, value in locals().items() if name != "config"}
    chosen = settings(config, **given)
    setup_logging(level=chosen.log_level, as_json=chosen.log_json)
    engines = load_with_progress(chosen)
    from server.app import build_app
    from server.http_server import make_server

    app = build_app(chosen, engines=engines)
    server = make_server(app, chosen, on_listening=lambda url: _announce(app.state.service, url))
    server.run()
    if not server.started:
        raise typer.Exit(1)
