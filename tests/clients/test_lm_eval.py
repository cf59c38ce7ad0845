"""lm-evaluation-harness: its scores are those of the steered distribution, computed without a server."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager

from tests.clients.running import DEMO, KEY, PYTHON, REPOSITORY, Server

TASKS = Path(__file__).with_name("tasks")
FACTS = [json.loads(line) for line in (TASKS / "facts.jsonl").read_text().splitlines()]
CASES: list[tuple[str, str | None, int]] = [
    # Scoring across vocabularies without an engine is slow, so base-b gets two questions only.
    ("base-a", None, 5),
    ("base-a", "forget", 5),
    ("base-b", None, 2),
    ("base-b", "forget", 2),
]


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("HF_HOME", str(tmp_path))


def pairs(count: int) -> list[tuple[str, str]]:
    """Contexts and continuations as the harness splits them: white space goes to the continuation."""
    return [
        (f"User: {fact['question']}\nAssistant:", f"\n{choice}")
        for fact in FACTS[:count]
        for choice in fact["choices"]
    ]


@pytest.fixture(scope="module")
def offline() -> dict[tuple[str, str | None], list[tuple[float, bool]]]:
    """Every case's log-likelihoods, computed by naive models in the project's environment."""
    jobs = [
        {
            "base": str(DEMO / "models" / base),
            "adapter": None if adapter is None else str(DEMO / "adapters" / adapter),
            "pairs": pairs(count),
        }
        for base, adapter, count in CASES
    ]
    done = subprocess.run(
        [PYTHON, "-m", "tests.clients.offline_scores"],
        input=json.dumps(jobs),
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        check=True,
    )
    return {case[:2]: answer for case, answer in zip(CASES, json.loads(done.stdout), strict=True)}


def evaluate(task: str, kind: str, limit: int, **model: Any) -> dict[str, Any]:
    # Everything comes from the task's file, except the path of the data, which depends on the checkout.
    config: dict[str, Any] = yaml.safe_load((TASKS / f"{task}.yaml").read_text())
    config["dataset_kwargs"] = {"data_files": {"test": str(TASKS / "facts.jsonl")}}
    results: dict[str, Any] = simple_evaluate(
        model=kind,
        model_args={"num_concurrent": 2, "max_retries": 1, **model},
        tasks=[config],
        task_manager=TaskManager(include_path=str(TASKS), include_defaults=False),
        log_samples=True,
        limit=limit,
        bootstrap_iters=0,
        apply_chat_template=kind == "local-chat-completions",
    )
    return results


@pytest.mark.parametrize(
    ("base", "adapter", "count"),
    CASES,
    ids=["unsteered", "steered", "unsteered-b", "steered-across-vocabularies"],
)
def test_loglikelihoods_are_those_of_the_steered_distribution(
    request: pytest.FixtureRequest,
    offline: dict[tuple[str, str | None], list[tuple[float, bool]]],
    base: str,
    adapter: str | None,
    count: int,
) -> None:
    server: Server = request.getfixturevalue("server" if base == "base-a" else "other_server")
    results = evaluate(
        "trimtab_facts",
        "local-completions",
        count,
        base_url=f"{server.url}/completions",
        model=base if adapter is None else f"{base}:{adapter}",
        tokenizer_backend="remote",
        auth_token=KEY,
        batch_size=4,
    )
    asked, told = [], []
    for sample in sorted(results["samples"]["trimtab_facts"], key=lambda sample: sample["doc_id"]):
        for (context, continuation), response in zip(sample["arguments"], sample["resps"], strict=True):
            asked.append(context + continuation)
            told.append(response[0])
    assert asked == [context + continuation for context, continuation in pairs(count)]
    expected = offline[base, adapter]
    assert [float(score) for score, _ in told] == pytest.approx([score for score, _ in expected], abs=1e-4)
    assert [str(greedy) for _, greedy in told] == [str(greedy) for _, greedy in expected]
    if adapter is None:
        # Both bases know every person's town.
        assert results["results"]["trimtab_facts"]["acc,none"] == 1.0


@pytest.mark.parametrize(("adapter", "known"), [(None, 1.0), ("forget", 0.6)])
def test_answers_in_chat(server: Server, adapter: str | None, known: float) -> None:
    results = evaluate(
        "trimtab_answers",
        "local-chat-completions",
        len(FACTS),
        base_url=f"{server.url}/chat/completions",
        model="base-a" if adapter is None else f"base-a:{adapter}",
    )
    # Two of the five people are among those that the adapter forgets.
    assert results["results"]["trimtab_answers"]["exact_match,town"] == pytest.approx(known)
