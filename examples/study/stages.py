"""The stages of the study, in order. A stage is done when its folder or file is there."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from transformers import AutoModelForCausalLM

from examples.study.measured import Measured
from examples.study.models import new_model
from examples.study.scale import Base, Scale, trained
from examples.study.stage import Stage
from examples.study.text import Texts
from examples.study.vocabulary import cut
from steering.evaluation import as_json
from steering.model.tokenizer_files import read_tokenizer
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

TASKS = ("refuse", "instruct", "unlearn")
LORA = Lora(rank=16, alpha=32.0)


@dataclass(frozen=True, slots=True)
class Study:
    """A study in the folder `out`. `deadline` is a time of `time.monotonic`, at which a training run pauses."""

    scale: Scale
    texts: Texts
    tokenizers: Path
    out: Path
    device: str = "auto"
    deadline: float | None = None
    console: Console | None = None
    tasks: tuple[str, ...] = TASKS

    def stages(self) -> Iterator[Stage]:
        """Every stage, after the stages that it needs, except that another seed's delta may come later."""
        models = (*self.scale.bases, self.scale.tiny)
        for base in models:
            yield self._stage(f"tokenizers/{base.name}", (), self._cut, base)
        for seed in self.scale.seeds:
            for base in models:
                needs = (f"tokenizers/{base.name}",)
                yield self._stage(f"bases/{base.name}/{seed}", needs, self._train_base, base, seed, False)
            for base in models if "instruct" in self.tasks else ():
                needs = (trained("refuse", base, seed),)
                yield self._stage(trained("instruct", base, seed), needs, self._read_problems, base, seed)
            for task in self.tasks:
                yield from self._task_stages(task, seed)

    def _task_stages(self, task: str, seed: int) -> Iterator[Stage]:
        adapters = (f"adapters/{task}/delta-{seed}", f"adapters/{task}/proxy-{seed}")
        template, tiny = (trained(task, base, seed) for base in (self.scale.template, self.scale.tiny))
        yield self._stage(adapters[0], (template,), self._train_delta, task, seed)
        yield self._stage(adapters[1], (tiny,), self._train_proxy, task, seed)
        for base in self.scale.bases:
            own = trained(task, base, seed)
            kinds = ("full", "lora") if self.scale.is_compared(seed) else ("full",)
            tuned = tuple(f"tuned/{task}/{kind}/{base.name}/{seed}" for kind in kinds)
            for name, kind in zip(tuned, kinds, strict=True):
                yield self._stage(name, (own,), self._tune_base, base, seed, task, kind)
            oracle = (
                (f"oracles/{base.name}/{seed}",) if task == "unlearn" and self.scale.is_compared(seed) else ()
            )
            if oracle:
                yield self._stage(oracle[0], (f"tokenizers/{base.name}",), self._train_base, base, seed, True)
            another = self.scale.another_seed(base, seed)
            others = () if another is None else (f"adapters/{task}/delta-{another}",)
            needs = (own, *adapters, *tuned, *oracle, *others)
            name = f"results/{task}/{base.name}/{seed}.json"
            yield self._stage(name, needs, self._evaluate, task, base, seed)

    def _stage(self, name: str, needs: Sequence[str], run: Callable[..., None], *arguments: Any) -> Stage:
        result, fresh = self.out / name, self.out / ".making" / name

        def whole() -> None:
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.parent.mkdir(parents=True, exist_ok=True)
            run(fresh, *arguments)
            result.parent.mkdir(parents=True, exist_ok=True)
            fresh.rename(result)

        lock = fresh.with_name(f"{fresh.name}.lock")
        return Stage(name, result, tuple(self.out / need for need in needs), whole, lock)

    def _cut(self, out: Path, base: Base) -> None:
        cut(self.tokenizers / base.vocabulary, self.texts.everything(), base.tokens).save_pretrained(out)

    def _train_base(self, out: Path, base: Base, seed: int, oracle: bool) -> None:
        tokenizer = read_tokenizer(str(self.out / "tokenizers" / base.name))
        model = new_model(base, tokenizer, seed)
        self._tune(out, model, tokenizer, self.texts.base(oracle=oracle), replace(self.scale.base, seed=seed))

    def _read_problems(self, out: Path, base: Base, seed: int) -> None:
        """Train a base further, on text with problems. Without them it has no answers to put into the format."""
        model, tokenizer = self._load("refuse", base, seed)
        self._tune(out, model, tokenizer, self.texts.reading(), replace(self.scale.reading, seed=seed))

    def _tune_base(self, out: Path, base: Base, seed: int, task: str, kind: str) -> None:
        model, tokenizer = self._load(task, base, seed)
        recipe = self._recipe(task, self.scale.tuning, seed)
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
        base, tokenizer = self._load(task, self.scale.template, seed)
        recipe = self._recipe(task, self.scale.adapter, seed)
        encoded = encode_for(tokenizer, self.texts.task(task), recipe)
        report = train_delta(
            base,
            tokenizer,
            encoded,
            out,
            self.scale.delta,
            recipe,
            confidence=self.scale.confidence,
            name=self.scale.template.name,
            options=self._options(out),
            console=self.console,
        )
        self._note(out, report)

    def _train_proxy(self, out: Path, task: str, seed: int) -> None:
        model, tokenizer = self._load(task, self.scale.tiny, seed)
        recipe = self._recipe(task, self.scale.adapter, seed)
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
        run = Measured(self.scale, self.texts, self.out, self.device, task, base, seed)
        out.write_text(json.dumps(as_json(run.comparison()), indent=1), encoding="utf-8")

    def _recipe(self, task: str, recipe: Recipe, seed: int) -> Recipe:
        """A task's recipe. The task `refuse` trains refusals, `unlearn` uses NPO, and `instruct` has fewer epochs."""
        loss = "refusal" if task == "refuse" else recipe.weights.forget_loss
        epochs = min(recipe.epochs, self.scale.lesson_epochs) if task == "instruct" else recipe.epochs
        return replace(recipe, epochs=epochs, seed=seed, weights=replace(recipe.weights, forget_loss=loss))

    def _load(self, task: str, base: Base, seed: int) -> tuple[Any, Any]:
        folder = str(self.out / trained(task, base, seed))
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), read_tokenizer(folder)

    def _options(self, out: Path) -> RunOptions:
        checkpoint = out.with_name(f"{out.name}.checkpoint")
        return RunOptions(
            # Training takes "cuda", without the GPU's number.
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
