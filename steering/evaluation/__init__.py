"""Measures steered models through the engine itself. Only the command line imports it."""

from steering.evaluation.comparison import NOTE, Comparison, Row, compare, measure
from steering.evaluation.report import as_json, as_table, write_picture
from steering.evaluation.running import EvaluationError
from steering.evaluation.setting import Setting
from steering.evaluation.sweep import (
    HYPERPARAMETERS,
    Criterion,
    Sweep,
    SweepError,
    SweepResult,
    SweepRun,
    split,
)
from steering.evaluation.systems import (
    ALONE,
    BASE,
    RANDOM,
    SHUFFLED,
    STEERED,
    TUNED,
    System,
    alone_system,
    base_system,
    control_systems,
    random_system,
    shuffled_system,
    steered_system,
    tuned_system,
)
from steering.evaluation.task import Measurement, Task, TextTask, thinned
from steering.evaluation.tofu import TofuTask, read_tofu

__all__ = [
    "ALONE",
    "BASE",
    "HYPERPARAMETERS",
    "NOTE",
    "RANDOM",
    "SHUFFLED",
    "STEERED",
    "TUNED",
    "Comparison",
    "Criterion",
    "EvaluationError",
    "Measurement",
    "Row",
    "Setting",
    "Sweep",
    "SweepError",
    "SweepResult",
    "SweepRun",
    "System",
    "Task",
    "TextTask",
    "TofuTask",
    "alone_system",
    "as_json",
    "as_table",
    "base_system",
    "compare",
    "control_systems",
    "measure",
    "random_system",
    "read_tofu",
    "shuffled_system",
    "split",
    "steered_system",
    "thinned",
    "tuned_system",
    "write_picture",
]
