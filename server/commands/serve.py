"""`trimtab serve`."""

from __future__ import annotations

import math
from types import FrameType
from typing import Annotated

import typer
import uvicorn
from fastapi import FastAPI

from server.commands.loading import load_with_progress
from server.commands.options import (
    Adapters,
    ConfigFile,
    Device,
    Dtype,
    MaxModelLen,
    Models,
    console,
    settings,
)
from server.config import Config


class DrainingServer(uvicorn.Server):
    """Tells the app as soon as the process is told to stop, so that it refuses new work while old work ends."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._app = app

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The signal handler."""
        self._app.state.service.drain()
        super().handle_exit(sig, frame)

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        """Says where the server is, once it is."""
        await super().startup(sockets)  # type: ignore[arg-type]
        for listener in self.servers if self.started else ():
            for bound in listener.sockets:
                host, port = bound.getsockname()[:2]
                _announce(self._app, f"[{host}]" if ":" in host else host, port)


def _announce(app: FastAPI, host: str, port: int) -> None:
    bases = app.state.service.bases
    names = [
        name if adapter is None else f"{name}:{adapter}"
        for name, base in bases.items()
        for adapter in (None, *base.engine.adapters())
    ]
    console.print(
        f"trimtab serves {', '.join(names)} at http://{host}:{port}/v1", highlight=False, soft_wrap=True
    )


def make_server(app: FastAPI, config: Config) -> DrainingServer:
    """The HTTP server for `app`, not yet started."""
    return DrainingServer(
        uvicorn.Config(
            app,
            host=config.host,
            port=config.port,
            log_level="warning",
            timeout_graceful_shutdown=math.ceil(config.shutdown_timeout),
        ),
        app,
    )


def serve(
    config: ConfigFile = None,
    model: Models = None,
    adapter: Adapters = None,
    host: Annotated[str | None, typer.Option(help="Where to listen; 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(help="Where to listen; 8000.")] = None,
    api_key: Annotated[
        list[str] | None, typer.Option(help="A key that clients must bear; several may do.")
    ] = None,
    device: Device = None,
    dtype: Dtype = None,
    max_model_len: MaxModelLen = None,
    max_num_seqs: Annotated[int | None, typer.Option(help="The most sequences that run at once; 32.")] = None,
    max_queue: Annotated[
        int | None, typer.Option(help="The most sequences that wait beyond those; 256.")
    ] = None,
    kv_cache_memory: Annotated[str | None, typer.Option(help="For each base's pages, as in 2GiB.")] = None,
    shutdown_timeout: Annotated[
        float | None, typer.Option(help="Seconds that running requests are given; 30.")
    ] = None,
) -> None:
    """Serve bases and the adapters that steer them over an OpenAI-style API."""
    chosen = settings(
        config,
        model=model,
        adapter=adapter,
        host=host,
        port=port,
        api_key=api_key,
        device=device,
        dtype=dtype,
        max_model_len=max_model_len,
        max_num_seqs=max_num_seqs,
        max_queue=max_queue,
        kv_cache_memory=kv_cache_memory,
        shutdown_timeout=shutdown_timeout,
    )
    engines = load_with_progress(chosen)
    from server.app import build_app

    server = make_server(build_app(chosen, engines=engines), chosen)
    server.run()
    if not server.started:
        raise typer.Exit(1)
