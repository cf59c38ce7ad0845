"""The gauges that routers of vLLM servers read, under vLLM's names: `--metrics-compat vllm`.

The Kubernetes gateway for inference and the router of vLLM's production stack choose a server by them.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from server.engines.worker import EngineWorker
from server.names import NONE, SEVERAL
from steering.engine.config import EngineConfig

_LABELS = ("model_name", "engine")
_ENGINE = "0"
_PAGE_SIZE = EngineConfig().page_size


class VllmCollector(Collector):
    """Reads the engines at each scrape. An adapter is to vLLM's routers what a LoRA adapter is: a model's name."""

    def __init__(self, workers: Mapping[str, EngineWorker]) -> None:
        self._workers = workers

    def collect(self) -> Iterable[Metric]:
        """The gauges; of several bases each has its own series, and a router for one model reads the first."""
        running = _gauge("num_requests_running", "running sequences", _LABELS)
        waiting = _gauge("num_requests_waiting", "waiting sequences", _LABELS)
        usage = _gauge("kv_cache_usage_perc", "share of the key/value pages in use, 0 to 1", _LABELS)
        config = _gauge(
            "cache_config_info", "the key/value memory", (*_LABELS, "block_size", "num_gpu_blocks")
        )
        for model, worker in self._workers.items():
            loads, stats = worker.load(), worker.stats
            running.add_metric([model, _ENGINE], loads[0].total())
            waiting.add_metric([model, _ENGINE], loads[1].total())
            usage.add_metric([model, _ENGINE], stats.kv_pages_used / max(1, stats.kv_pages_total))
            config.add_metric([model, _ENGINE, str(_PAGE_SIZE), str(stats.kv_pages_total)], 1)
        return [running, waiting, usage, config, self._adapters()]

    def _adapters(self) -> Metric:
        """The adapters in use, by the names that requests have for them. The value is the time, as vLLM's."""
        info = _gauge(
            "lora_requests_info",
            "adapters in use, and how many can be",
            ("max_lora", "running_lora_adapters", "waiting_lora_adapters"),
        )
        names: tuple[list[str], list[str]] = ([], [])
        loaded = 0
        for model, worker in self._workers.items():
            loaded += len(worker.engine.session.adapters())
            for found, load in zip(names, worker.load(), strict=True):
                found.extend(
                    f"{model}:{adapter}" for adapter in sorted(load) if adapter not in (NONE, SEVERAL)
                )
        # All that are loaded can run at once.
        info.add_metric([str(loaded), *(",".join(found) for found in names)], time.time())
        return info


def _gauge(name: str, text: str, labels: tuple[str, ...]) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"vllm:{name}", text, labels=labels)
