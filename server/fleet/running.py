"""Starts replicas of the server on Ray Serve, and ends them in an orderly way."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from server.config import Config
from server.fleet.scaling import PendingPolicy
from steering.device.cores import available_cores

_HEALTH_SECONDS = 2.0
_GRACE_SECONDS = 10.0
_POLL_SECONDS = 0.1
_GROW_SECONDS = 10.0
"""The load must call for more replicas for so long before one is started. Ray waits ten minutes before it ends one."""
_FLUSH_SECONDS = 0.5


class FleetError(RuntimeError):
    """The replicas cannot be started; the message says why."""


def run_fleet(config: Config, on_ready: Callable[[str], None]) -> None:
    """Serves until SIGTERM or SIGINT; `on_ready` is called with the address once a replica serves.

    Joins the cluster of RAY_ADDRESS, or starts one on this machine that ends with this process. Raises `FleetError`.
    """
    with tempfile.TemporaryDirectory(prefix="trimtab-fleet-") as folder:
        _configure_ray(Path(folder))
        try:
            import ray
            from ray import serve
        except ImportError as error:
            raise FleetError(
                f"replicas need the extra `ray`: pip install 'trimtab[ray]' ({error})"
            ) from error
        threads = config.threads or max(1, available_cores() // (config.max_replicas or config.replicas))
        own = {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": _cores(config, threads)}
        ray.init(include_dashboard=False, **own)
        try:
            _start(serve, config, threads, Path(folder))
            # After Ray has set its own handlers, which end the process at once.
            stop = _stopped_by_signals()
            on_ready(f"http://{config.host}:{config.port}")
            stop.wait()
            _end(serve, config)
        except RuntimeError as error:
            raise FleetError(str(error)) from error
        finally:
            serve.shutdown()
            ray.shutdown()


def _configure_ray(folder: Path) -> None:
    """Has Ray use HAProxy before the replicas, each of which then answers its clients itself.

    Ray's own proxy reads a reply to its end however slowly the client reads, so that no replica could notice. Through
    HAProxy the connection's own flow control reaches the replica, whose code must then run in the thread that sends.
    """
    for name, value in {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "2",
        # Otherwise Ray leaves out what looks like a repeated line of the log.
        "RAY_DEDUP_LOGS": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
    }.items():
        os.environ.setdefault(name, value)


def _cores(config: Config, threads: int) -> int:
    """What the cluster on this machine is told that it has: enough for all replicas, however few cores there are."""
    return max(available_cores(), threads * (config.max_replicas or config.replicas) + 1)


def _start(serve: Any, config: Config, threads: int, folder: Path) -> None:
    from ray.serve.config import HTTPOptions

    from server.fleet.replica import NAME, Replica

    settings = config.model_dump(mode="json", exclude={"replicas", "max_replicas"}, exclude_none=True)
    settings["threads"] = threads
    # Without a store of the user's, adapters live as long as the fleet, as those of one server do.
    settings.setdefault("adapter_store", str(folder / "adapters.json"))
    deployment = serve.deployment(
        serve.ingress()(Replica),
        name=NAME,
        # Ray shows each replica a GPU of its own.
        ray_actor_options={"num_cpus": threads, "num_gpus": int(_uses_gpu(config))},
        # The server's own limits refuse what is too much, and say so.
        max_ongoing_requests=2 * (config.max_num_seqs + config.max_queue) + 256,
        health_check_period_s=_HEALTH_SECONDS,
        # No reply takes longer than this, so Ray ends none: a stream ends with the server's own error.
        graceful_shutdown_timeout_s=config.request_timeout + _GRACE_SECONDS,
        **_number(config),
    )
    serve.start(http_options=HTTPOptions(host=config.host, port=config.port))
    serve.run(deployment.bind(settings), name=NAME, route_prefix="/")


def _uses_gpu(config: Config) -> bool:
    return config.device.startswith("cuda") or (config.device == "auto" and torch.cuda.is_available())


def _number(config: Config) -> dict[str, Any]:
    if config.max_replicas is None:
        return {"num_replicas": config.replicas}
    from ray.serve.config import AutoscalingConfig, AutoscalingPolicy

    return {
        "autoscaling_config": AutoscalingConfig(
            min_replicas=config.replicas,
            max_replicas=config.max_replicas,
            upscale_delay_s=_GROW_SECONDS,
            policy=AutoscalingPolicy(
                policy_function=PendingPolicy, policy_kwargs={"max_num_seqs": config.max_num_seqs}
            ),
        )
    }


def _end(serve: Any, config: Config) -> None:
    """Has the replicas refuse new work, and waits until they have no more; then nothing is cut off."""
    from server.fleet.replica import NAME

    handle = serve.get_deployment_handle(NAME, NAME)
    handle.broadcast("drain", config.shutdown_timeout).results(timeout_s=10, return_exceptions=True)
    deadline = time.monotonic() + config.shutdown_timeout + _GRACE_SECONDS
    while time.monotonic() < deadline:
        answers = handle.broadcast("open_requests").results(timeout_s=10, return_exceptions=True)
        if not any(answer for answer in answers if isinstance(answer, int)):
            break
        time.sleep(_POLL_SECONDS)
    # HAProxy may still be passing on the end of a reply.
    time.sleep(_FLUSH_SECONDS)


def _stopped_by_signals() -> threading.Event:
    """An event that the first SIGTERM or SIGINT sets; a second one ends the process at once."""
    stop = threading.Event()

    def handle(sig: int, frame: object) -> None:
        if stop.is_set():
            os._exit(128 + sig)
        stop.set()

    for sig in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sig, handle)
    return stop
