"""The measurement of one base at one task: every system that steers or replaces it, asked the same."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from examples.study.scale import Base, Scale, trained
from examples.study.text import ANSWER, REFUSED, Texts
from steering.adapters import Adapter, load_adapter
from steering.engine.engine import Engine, EngineConfig
from steering.evaluation import (
    Comparison,
    Setting,
    System,
    Task,
    TextTask,
    TofuTask,
    alone_system,
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
from steering.training import DEFAULT_REFUSAL

TUNED_BY_LORA = "tuned by LoRA"
ANOTHERS = "another seed's delta"
"""The label of a delta trained beside another seed's template: another base, the same vocabulary."""

_CONFIG = EngineConfig(max_num_seqs=64, max_step_tokens=2048)


@dataclass(frozen=True, slots=True)
class Measured:
    """A base, a task and a seed of the study in the folder `out`."""

    scale: Scale
    texts: Texts
    out: Path
    device: str
    task: str
    base: Base
    seed: int

    def comparison(self) -> Comparison:
        """Measure every system."""
        about = {
            "task": self.task,
            "base": self.base.name,
            "seed": self.seed,
            "confidence": self.scale.confidence,
        }
        return compare(self._systems(), self._tasks(), about=about)

    def _systems(self) -> list[Callable[[], System]]:
        """The systems, each made when its turn comes."""
        folder = self.out / trained(self.task, self.base, self.seed)
        engine = Engine(load_model(folder, device=self.device), _CONFIG)
        delta, proxy = self._adapter("delta", self.seed), self._adapter("proxy", self.seed)
        setting = Setting()
        systems: list[Callable[[], System]] = [
            lambda: base_system(engine),
            lambda: steered_system(engine, delta, setting, "delta"),
            lambda: steered_system(engine, delta, replace(setting, bridge="map"), "delta by map"),
            lambda: steered_system(engine, proxy, setting, "proxy"),
            lambda: self._tuned("full"),
            lambda: replace(alone_system(delta, _CONFIG), label="delta alone"),
            lambda: replace(alone_system(proxy, _CONFIG), label="expert alone"),
            lambda: random_system(engine, delta, setting, self.seed),
            lambda: shuffled_system(engine, delta, setting, self.seed),
        ]
        if self.scale.is_compared(self.seed):
            systems.append(lambda: replace(self._tuned("lora"), label=TUNED_BY_LORA))
        another = self.scale.another_seed(self.base, self.seed)
        if another is not None:
            systems.append(lambda: steered_system(engine, self._adapter("delta", another), setting, ANOTHERS))
        return systems

    def _adapter(self, kind: str, seed: int) -> Adapter:
        name = f"{kind}-{seed}"
        return load_adapter(name, self.out / "adapters" / self.task / name, device=self.device)

    def _tuned(self, kind: str) -> System:
        folder = self.out / "tuned" / self.task / kind / self.base.name / str(self.seed)
        return tuned_system(load_model(folder, device=self.device), _CONFIG)

    def _tasks(self) -> list[Task]:
        """The trained task, and text on which the base should stay as it was."""
        kept = self._text_task("kept", thinned(self.texts.kept, self.scale.asked))
        if self.task == "instruct":
            return [self._text_task("problems", self.texts.held_out, ANSWER), kept]
        if self.task == "refuse":
            asked = thinned(self.texts.forgotten, self.scale.asked)
            refused = [replace(each, response=DEFAULT_REFUSAL) for each in asked]
            return [self._text_task("forgotten", refused, REFUSED), kept]
        plain = TofuTask(self.texts.sets, self._limit((*self.texts.forgotten, *self.texts.kept)))
        if not self.scale.is_compared(self.seed):
            return [plain]
        folder = self.out / "oracles" / self.base.name / str(self.seed)
        oracle = base_system(Engine(load_model(folder, device=self.device)))
        return [replace(plain, oracle=plain.forget_ratios(oracle))]

    def _text_task(
        self, name: str, examples: Sequence[Example], pattern: re.Pattern[str] | None = None
    ) -> Task:
        return TextTask(name, tuple(examples), self._limit(examples), pattern)

    def _limit(self, examples: Sequence[Example]) -> int:
        """The most tokens of an answer: the length of the longest reference in this base's vocabulary."""
        tokenizer = read_tokenizer(str(self.out / "tokenizers" / self.base.name))
        return max(len(each) for each in tokenizer([each.response for each in examples])["input_ids"])
