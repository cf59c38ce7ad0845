"""What is to be done, in order, each stage once: a stage's folder or file is there when it is done."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from transformers import AutoModelForCausalLM

from examples.study.models import new_model
from examples.study.scale import Base, Scale
from examples.study.text import ANSWER, Texts, tofu_task
from examples.study.vocabulary import cut
from steering.adapters import load_adapter
from steering.engine import Engine, EngineConfig
from steering.evaluation import (
    Setting,
    System,
    Task,
    TextTask,
    alone_system,
    as_json,
    base_system,
    compare,
    random_system,
    shuffled_system,
    steered_system,
    tuned_system,
)
from steering.models import load_model
from steering.tokenizer_files import read_tokenizer
from steering.training import (
    Lora,
    Recipe,
    RunOptions,
    TrainingReport,
    encode_for,
    remove_checkpoint,
    save_model,
    train_delta,
    train_proxy,
    tune,
)

TASKS = ("unlearn", "instruct")
LORA = Lora(rank=16, alpha=32.0)
TUNED_BY_LORA = "tuned by LoRA"


@dataclass(frozen=True, slots=True)
class Stage:
    """One piece of the study: its name, what it leaves, and how it is done."""

    name: str
    result: Path
    run: Callable[[], None]

    @property
    def done(self) -> bool:
        """True when its result is there: results appear whole or not at all."""
        return self.result.exists()


@dataclass(frozen=True, slots=True)
class Study:
    """A study in a folder. `deadline` is on the clock of `time.monotonic`; a training run pauses there."""

    scale: Scale
    texts: Texts
    tokenizers: Path
    out: Path
    device: str = "auto"
    deadline: float | None = None
    console: Console | None = None
    tasks: tuple[str, ...] = TASKS

    def stages(self) -> Iterator[Stage]:
        """Every stage, so that what a stage needs comes before it."""
        models = (*self.scale.bases, self.scale.tiny)
        for base in models:
            yield self._stage(f"tokenizers/{base.name}", self._cut, base)
        for seed in self.scale.seeds:
            for base in models:
                yield self._stage(f"bases/{base.name}/{seed}", self._train_base, base, seed, False)
            for base in self.scale.bases:
                yield self._stage(f"oracles/{base.name}/{seed}", self._train_base, base, seed, True)
            for task in self.tasks:
                for base in self.scale.bases:
                    for kind in ("full", "lora"):
                        name = f"tuned/{task}/{kind}/{base.name}/{seed}"
                        yield self._stage(name, self._tune_base, base, seed, task, kind)
                yield self._stage(f"adapters/{task}/delta-{seed}", self._train_delta, task, seed)
                yield self._stage(f"adapters/{task}/proxy-{seed}", self._train_proxy, task, seed)
                for base in self.scale.bases:
                    name = f"results/{task}/{base.name}/{seed}.json"
                    yield self._stage(name, self._evaluate, task, base, seed)

    def _stage(self, name: str, run: Callable[..., None], *arguments: Any) -> Stage:
        result = self.out / name

        def whole() -> None:
            fresh = self.out / ".making" / name
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.parent.mkdir(parents=True, exist_ok=True)
            run(fresh, *arguments)
            result.parent.mkdir(parents=True, exist_ok=True)
            fresh.rename(result)

        return Stage(name, result, whole)

    def _cut(self, out: Path, base: Base) -> None:
        cut(self.tokenizers / base.vocabulary, self.texts.everything(), base.tokens).save_pretrained(out)

    def _train_base(self, out: Path, base: Base, seed: int, oracle: bool) -> None:
        tokenizer = read_tokenizer(str(self.out / "tokenizers" / base.name))
        model = new_model(base, tokenizer, seed)
        self._tune(out, model, tokenizer, self.texts.base(oracle=oracle), replace(self.scale.base, seed=seed))

    def _tune_base(self, out: Path, base: Base, seed: int, task: str, kind: str) -> None:
        model, tokenizer = self._load(base, seed)
        recipe = replace(self.scale.tuning, seed=seed)
        self._tune(out, model, tokenizer, self.texts.task(task), recipe, LORA if kind == "lora" else None)

    def _tune(
        self,
        out: Path,
        model: Any,
        tokenizer: Any,
        examples: list[Any],
        recipe: Recipe,
        lora: Lora | None = None,
    ) -> None:
        encoded, options = encode_for(tokenizer, examples, recipe), self._options(out)
        tuned, report = tune(
            model,
            tokenizer,
            encoded,
            recipe,
            lora=lora,
            title=_title(out),
            options=options,
            console=self.console,
        )
        save_model(tuned, tokenizer, out)
        self._note(out, report)
        remove_checkpoint(options)

    def _train_delta(self, out: Path, task: str, seed: int) -> None:
        base, tokenizer = self._load(self.scale.template, seed)
        recipe = replace(self.scale.adapter, seed=seed)
        encoded = encode_for(tokenizer, self.texts.task(task), recipe)
        report = train_delta(
            base,
            tokenizer,
            encoded,
            out,
            self.scale.delta,
            recipe,
            name=self.scale.template.name,
            options=self._options(out),
            console=self.console,
        )
        self._note(out, report)

    def _train_proxy(self, out: Path, task: str, seed: int) -> None:
        model, tokenizer = self._load(self.scale.tiny, seed)
        recipe = replace(self.scale.adapter, seed=seed)
        encoded = encode_for(tokenizer, self.texts.task(task), recipe)
        report = train_proxy(
            model,
            tokenizer,
            encoded,
            out,
            recipe,
            name=self.scale.tiny.name,
            options=self._options(out),
            console=self.console,
        )
        self._note(out, report)

    def _evaluate(self, out: Path, task: str, base: Base, seed: int) -> None:
        config = EngineConfig(max_num_seqs=64, max_step_tokens=2048)
        engine = Engine(load_model(self.out / "bases" / base.name / str(seed), device=self.device), config)
        delta, proxy = (
            load_adapter(kind, self.out / "adapters" / task / f"{kind}-{seed}", device=self.device)
            for kind in ("delta", "proxy")
        )

        def tuned(kind: str) -> System:
            return tuned_system(
                load_model(self.out / "tuned" / task / kind / base.name / str(seed), device=self.device),
                config,
            )

        setting = Setting()
        systems: list[Callable[[], System]] = [
            lambda: base_system(engine),
            lambda: steered_system(engine, delta, setting, "delta"),
            lambda: steered_system(engine, proxy, setting, "proxy"),
            lambda: tuned("full"),
            lambda: replace(tuned("lora"), label=TUNED_BY_LORA),
            lambda: replace(alone_system(delta, config), label="delta alone"),
            lambda: replace(alone_system(proxy, config), label="expert alone"),
            lambda: random_system(engine, delta, setting, seed),
            lambda: shuffled_system(engine, delta, setting, seed),
        ]
        found = compare(
            systems, [self._task(task, base, seed)], about={"task": task, "base": base.name, "seed": seed}
        )
        out.write_text(json.dumps(as_json(found), indent=1), encoding="utf-8")

    def _task(self, task: str, base: Base, seed: int) -> Task:
        if task == "instruct":
            return TextTask("problems", self.texts.held_out, self.scale.max_tokens, ANSWER)
        never_saw = load_model(self.out / "oracles" / base.name / str(seed), device=self.device)
        plain = tofu_task(self.texts, self.scale)
        return tofu_task(self.texts, self.scale, plain.forget_ratios(base_system(Engine(never_saw))))

    def _load(self, base: Base, seed: int) -> tuple[Any, Any]:
        folder = str(self.out / "bases" / base.name / str(seed))
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), read_tokenizer(folder)

    def _options(self, out: Path) -> RunOptions:
        checkpoint = out.with_name(f"{out.name}.checkpoint")
        return RunOptions(
            # Training has no use for the number of a GPU.
            device=self.device.partition(":")[0],
            checkpoint=checkpoint,
            resume=checkpoint.exists() or checkpoint.with_name(f"{checkpoint.name}.old").exists(),
            max_seconds=None if self.deadline is None else max(0.0, self.deadline - time.monotonic()),
        )

    def _note(self, out: Path, report: TrainingReport) -> None:
        if self.console is not None:
            self.console.print(
                f"{_title(out)}: {report.parameters:,} parameters, {report.steps} steps, "
                f"closing loss {report.loss:.3f}, {report.seconds / 60:.1f} min in this piece"
            )


def _title(out: Path) -> str:
    return f"{out.parent.name}/{out.name}"
