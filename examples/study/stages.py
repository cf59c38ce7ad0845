"""What is to be done, in order, each stage once: a stage's folder or file is there when it is done."""

from __future__ import annotations

import fcntl
import json
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from transformers import AutoModelForCausalLM

from examples.study.models import new_model
from examples.study.scale import Base, Scale
from examples.study.text import ANSWER, REFUSED, Texts
from examples.study.vocabulary import cut
from steering.adapters import Adapter, load_adapter
from steering.engine.engine import Engine, EngineConfig
from steering.evaluation import (
    Setting,
    System,
    Task,
    TextTask,
    TofuTask,
    alone_system,
    as_json,
    base_system,
    compare,
    random_system,
    shuffled_system,
    steered_system,
    thinned,
    tuned_system,
)
from steering.examples import Example
from steering.model.loading import load_model
from steering.model.tokenizer_files import read_tokenizer
from steering.training import (
    DEFAULT_REFUSAL,
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
TUNED_BY_LORA = "tuned by LoRA"
ANOTHERS = "another seed's delta"
"""Trained beside the template of another seed: another base, the same vocabulary."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One piece of the study: its name, what it leaves, and how it is done."""

    name: str
    result: Path
    needs: tuple[Path, ...]
    run: Callable[[], None]
    lock: Path

    @property
    def done(self) -> bool:
        """True when its result is there: results appear whole or not at all."""
        return self.result.exists()

    @property
    def ready(self) -> bool:
        """True when all that it works on is there."""
        return all(path.exists() for path in self.needs)

    @contextmanager
    def claimed(self) -> Iterator[bool]:
        """True for one process at a time; a process that dies lets go."""
        self.lock.parent.mkdir(parents=True, exist_ok=True)
        with self.lock.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True


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
        """Every stage, so that what a stage needs comes before it, but for another seed's delta."""
        models = (*self.scale.bases, self.scale.tiny)
        for base in models:
            yield self._stage(f"tokenizers/{base.name}", (), self._cut, base)
        for seed in self.scale.seeds:
            for base in models:
                needs = (f"tokenizers/{base.name}",)
                yield self._stage(f"bases/{base.name}/{seed}", needs, self._train_base, base, seed, False)
            for base in models if "instruct" in self.tasks else ():
                needs = (_trained("refuse", base, seed),)
                yield self._stage(_trained("instruct", base, seed), needs, self._read_problems, base, seed)
            for task in self.tasks:
                yield from self._task_stages(task, seed)

    def _task_stages(self, task: str, seed: int) -> Iterator[Stage]:
        adapters = (f"adapters/{task}/delta-{seed}", f"adapters/{task}/proxy-{seed}")
        template, tiny = (_trained(task, base, seed) for base in (self.scale.template, self.scale.tiny))
        yield self._stage(adapters[0], (template,), self._train_delta, task, seed)
        yield self._stage(adapters[1], (tiny,), self._train_proxy, task, seed)
        for base in self.scale.bases:
            own = _trained(task, base, seed)
            kinds = ("full", "lora") if self._is_compared(seed) else ("full",)
            tuned = tuple(f"tuned/{task}/{kind}/{base.name}/{seed}" for kind in kinds)
            for name, kind in zip(tuned, kinds, strict=True):
                yield self._stage(name, (own,), self._tune_base, base, seed, task, kind)
            oracle = (f"oracles/{base.name}/{seed}",) if task == "unlearn" and self._is_compared(seed) else ()
            if oracle:
                yield self._stage(oracle[0], (f"tokenizers/{base.name}",), self._train_base, base, seed, True)
            another = self._another(base, seed)
            others = () if another is None else (f"adapters/{task}/delta-{another}",)
            needs = (own, *adapters, *tuned, *oracle, *others)
            name = f"results/{task}/{base.name}/{seed}.json"
            yield self._stage(name, needs, self._evaluate, task, base, seed)

    def _is_compared(self, seed: int) -> bool:
        return seed in self.scale.seeds[: self.scale.compared]

    def _another(self, base: Base, seed: int) -> int | None:
        """The seed whose delta the template is steered by too; None for other bases, and where there is but one."""
        seeds = self.scale.seeds
        if base != self.scale.template or len(seeds) == 1:
            return None
        return seeds[(seeds.index(seed) + 1) % len(seeds)]

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
        """A base goes on, with problems among its text: one that knows none has no answers to put into a format."""
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
        config = EngineConfig(max_num_seqs=64, max_step_tokens=2048)
        engine = Engine(load_model(self.out / _trained(task, base, seed), device=self.device), config)

        def adapter(kind: str, of: int = seed) -> Adapter:
            folder = self.out / "adapters" / task / f"{kind}-{of}"
            return load_adapter(f"{kind}-{of}", folder, device=self.device)

        delta, proxy = adapter("delta"), adapter("proxy")

        def tuned(kind: str) -> System:
            return tuned_system(
                load_model(self.out / "tuned" / task / kind / base.name / str(seed), device=self.device),
                config,
            )

        setting = Setting()
        systems: list[Callable[[], System]] = [
            lambda: base_system(engine),
            lambda: steered_system(engine, delta, setting, "delta"),
            lambda: steered_system(engine, delta, replace(setting, bridge="map"), "delta by map"),
            lambda: steered_system(engine, proxy, setting, "proxy"),
            lambda: tuned("full"),
            lambda: replace(alone_system(delta, config), label="delta alone"),
            lambda: replace(alone_system(proxy, config), label="expert alone"),
            lambda: random_system(engine, delta, setting, seed),
            lambda: shuffled_system(engine, delta, setting, seed),
        ]
        if self._is_compared(seed):
            systems.append(lambda: replace(tuned("lora"), label=TUNED_BY_LORA))
        another = self._another(base, seed)
        if another is not None:
            systems.append(lambda: steered_system(engine, adapter("delta", another), setting, ANOTHERS))
        found = compare(
            systems,
            self._measured(task, base, seed),
            about={
                "task": task,
                "base": base.name,
                "seed": seed,
                "confidence": self.scale.confidence,
            },
        )
        out.write_text(json.dumps(as_json(found), indent=1), encoding="utf-8")

    def _measured(self, task: str, base: Base, seed: int) -> list[Task]:
        """What is asked: the task itself, and what is to stay as it was."""
        kept = self._text_task("kept", thinned(self.texts.kept, self.scale.asked), base)
        if task == "instruct":
            return [self._text_task("problems", self.texts.held_out, base, ANSWER), kept]
        if task == "refuse":
            asked = thinned(self.texts.forgotten, self.scale.asked)
            refused = [replace(each, response=DEFAULT_REFUSAL) for each in asked]
            return [self._text_task("forgotten", refused, base, REFUSED), kept]
        plain = TofuTask(self.texts.sets, self._limit((*self.texts.forgotten, *self.texts.kept), base))
        if not self._is_compared(seed):
            return [plain]
        never_saw = load_model(self.out / "oracles" / base.name / str(seed), device=self.device)
        return [replace(plain, oracle=plain.forget_ratios(base_system(Engine(never_saw))))]

    def _text_task(
        self, name: str, examples: Sequence[Example], base: Base, pattern: re.Pattern[str] | None = None
    ) -> Task:
        return TextTask(name, tuple(examples), self._limit(examples, base), pattern)

    def _limit(self, examples: Sequence[Example], base: Base) -> int:
        """Tokens of an answer: as many as the longest reference takes in this base's vocabulary."""
        tokenizer = read_tokenizer(str(self.out / "tokenizers" / base.name))
        return max(len(each) for each in tokenizer([each.response for each in examples])["input_ids"])

    def _recipe(self, task: str, recipe: Recipe, seed: int) -> Recipe:
        """Refusals replace what is to be refused, NPO unlearns; lessons are many, and so are read less often."""
        loss = "refusal" if task == "refuse" else recipe.weights.forget_loss
        epochs = min(recipe.epochs, self.scale.lesson_epochs) if task == "instruct" else recipe.epochs
        return replace(recipe, epochs=epochs, seed=seed, weights=replace(recipe.weights, forget_loss=loss))

    def _load(self, task: str, base: Base, seed: int) -> tuple[Any, Any]:
        folder = str(self.out / _trained(task, base, seed))
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


def _trained(task: str, base: Base, seed: int) -> str:
    """Where the base is that a task begins with."""
    return f"{'readers' if task == 'instruct' else 'bases'}/{base.name}/{seed}"


def _title(out: Path) -> str:
    return f"{out.parent.name}/{out.name}"
