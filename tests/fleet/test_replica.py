"""One replica without a cluster: what it tells Ray about itself."""

from __future__ import annotations

import pytest

from server.fleet.replica import Replica


async def test_a_replica_whose_engine_has_died_says_so() -> None:
    replica = Replica({"threads": 1})
    await replica.check_health()
    assert await replica.record_autoscaling_stats() == {"pending": 0.0}
    worker = replica._service.workers["base-b"]
    with worker.places.reserve(8, "", arrived=0.0):
        assert await replica.record_autoscaling_stats() == {"pending": 8.0}
    worker.failure = "the engine has died"
    with pytest.raises(RuntimeError, match="has died"):
        await replica.check_health()
