"""`trimtab serve`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from server.adapter_store import StoreError, open_store
from server.cli.grouped_options import grouped_options
from server.cli.loading import load_with_progress
from server.cli.options import (
    Adapters,
    ConfigFile,
    Demo,
    Device,
    Dtype,
    MaxModelLen,
    Models,
    console,
    fail,
    settings,
)
from server.telemetry.logs import setup_logging

if TYPE_CHECKING:
    from server.config import Config
    from server.service import Service


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """Every setting of the server as an option; None leaves it to the environment, the file and the default."""

    model: Models = None
    demo: Demo = None
    adapter: Adapters = None
    adapters_dir: Annotated[
        list[str] | None, typer.Option(help="A directory that adapters may be loaded from at run time.")
    ] = None
    adapter_store: Annotated[
        str | None,
        typer.Option(
            help="A file, or a URL of fsspec, that says which adapters all processes with it serve."
        ),
    ] = None
    host: Annotated[str | None, typer.Option(help="The address to listen on; by default 127.0.0.1.")] = None
    port: Annotated[int | None, typer.Option(help="The port to listen on; by default 8000.")] = None
    api_key: Annotated[
        list[str] | None,
        typer.Option(help="A key that clients must send. May be given several times; any of them will do."),
    ] = None
    admin_key: Annotated[
        str | None, typer.Option(help="The key for changing adapters; without one, nobody can change them.")
    ] = None
    cors_origin: Annotated[
        list[str] | None, typer.Option(help="A web origin whose pages may call the server; '*' is any.")
    ] = None
    device: Device = None
    dtype: Dtype = None
    threads: Annotated[
        int | None,
        typer.Option(help="Threads that compute on a CPU; by default the cores that the process may use."),
    ] = None
    replicas: Annotated[
        int | None, typer.Option(help="Processes that serve, on Ray Serve if more than 1; by default 1.")
    ] = None
    max_replicas: Annotated[
        int | None, typer.Option(help="The most replicas that are started as the load grows.")
    ] = None
    max_model_len: MaxModelLen = None
    max_num_seqs: Annotated[
        int | None, typer.Option(help="The most sequences that run at once; by default 32.")
    ] = None
    max_queue: Annotated[
        int | None, typer.Option(help="The most sequences that wait to run; by default 256.")
    ] = None
    max_share_per_key: Annotated[
        float | None,
        typer.Option(
            help="The largest share of the sequences that one API key, or one address, may have; by default 1."
        ),
    ] = None
    max_body_bytes: Annotated[
        str | None, typer.Option(help="The maximum size of a request's body; by default 8MiB.")
    ] = None
    max_prompt_bytes: Annotated[
        str | None, typer.Option(help="The maximum size of a prompt's text; by default 1MiB.")
    ] = None
    max_backlog: Annotated[
        int | None,
        typer.Option(help="The most outputs of a sequence that wait for a slow client; by default 1024."),
    ] = None
    max_connections: Annotated[
        int | None,
        typer.Option(help="The most open connections; by default as many as the file descriptors allow."),
    ] = None
    head_timeout: Annotated[
        float | None, typer.Option(help="Seconds that a request's head may take to arrive; by default 10.")
    ] = None
    keep_alive_timeout: Annotated[
        float | None,
        typer.Option(help="Seconds that a connection may stay open without a request; by default 75."),
    ] = None
    body_timeout: Annotated[
        float | None, typer.Option(help="Seconds that a request's body may take to arrive; by default 30.")
    ] = None
    request_timeout: Annotated[
        float | None,
        typer.Option(help="Seconds from a request's arrival to the end of its reply; by default 600."),
    ] = None
    send_timeout: Annotated[
        float | None,
        typer.Option(help="Seconds that a client may go without reading from its reply; by default 30."),
    ] = None
    reasoning_parser: Annotated[
        str | None,
        typer.Option(help="think: tell thoughts in <think> tags from the text of chat answers."),
    ] = None
    kv_cache_memory: Annotated[
        str | None, typer.Option(help="Memory for each base's keys and values, as in 2GiB.")
    ] = None
    enforce_eager: Annotated[
        bool | None,
        typer.Option(
            "--enforce-eager", help="On a GPU, capture no CUDA graphs and run no base a step ahead."
        ),
    ] = None
    shutdown_timeout: Annotated[
        float | None,
        typer.Option(help="Seconds that running requests have left at a shutdown; by default 30."),
    ] = None
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error; by default info.")] = (
        None
    )
    log_json: Annotated[bool | None, typer.Option("--log-json", help="Log one JSON object a line.")] = None
    metrics_compat: Annotated[
        str | None, typer.Option(help="vllm: /metrics also has the gauges that routers of vLLM servers read.")
    ] = None
    traces: Annotated[
        bool | None,
        typer.Option("--traces", help="Send OpenTelemetry traces to where the OTEL_* variables say."),
    ] = None


@grouped_options
def serve(*, config: ConfigFile = None, options: ServeOptions) -> None:
    """Serve bases and the adapters that steer them over an OpenAI-style API."""
    chosen = settings(config, **asdict(options))
    setup_logging(level=chosen.log_level, as_json=chosen.log_json)
    _check_store(chosen.adapter_store)
    if chosen.replicas > 1 or chosen.max_replicas is not None:
        _serve_replicas(chosen)
        return
    engines = load_with_progress(chosen)
    from server.app import build_app
    from server.http_server import make_server

    app = build_app(chosen, engines=engines)
    server = make_server(app, chosen, on_listening=lambda url: _announce(app.state.service, url))
    server.run()
    if not server.started:
        raise typer.Exit(1)


def _serve_replicas(config: Config) -> None:
    from server.fleet.running import FleetError, run_fleet

    number = f"{config.replicas}" + (f" to {config.max_replicas}" if config.max_replicas else "")
    try:
        run_fleet(
            config,
            lambda url: console.print(
                f"trimtab serves with {number} replicas at {url}/v1", highlight=False, soft_wrap=True
            ),
        )
    except FleetError as error:
        fail(str(error), error)


def _check_store(location: str | None) -> None:
    """Ends with one line and status 1 where the adapter store cannot be read, before models are loaded for it."""
    if location is not None:
        try:
            open_store(location).read()
        except StoreError as error:
            fail(str(error), error)


def _announce(service: Service, url: str) -> None:
    names = [
        name if adapter is None else f"{name}:{adapter}"
        for name, base in service.bases.items()
        for adapter in (None, *base.engine.session.adapters())
    ]
    console.print(f"trimtab serves {', '.join(names)} at {url}/v1", highlight=False, soft_wrap=True)
