"""Training of the tiny models that steer. Only the command line and the demo import it."""

from steering.training.checkpoint import CheckpointError, remove_checkpoint
from steering.training.data import Batch, StepTotals, collate, endless_groups, shuffled_groups
from steering.training.delta import CONFIDENCE, DeltaShape, new_delta, train_delta
from steering.training.held_out import split_held_out
from steering.training.loop import TrainingPausedError
from steering.training.objectives import ObjectiveWeights
from steering.training.proxy import train_proxy
from steering.training.recipe import (
    DEFAULT_REFUSAL,
    FEWEST_STEPS,
    NEW_MODEL_RATE,
    PUBLISHED_RATE,
    OptimiserConfig,
    Recipe,
    RunOptions,
    TrainingReport,
    choose_size,
    encode_for,
)
from steering.training.saving import save_model
from steering.training.stepper import TrainingDivergedError
from steering.training.tuning import Lora, tune, tune_on

__all__ = [
    "CONFIDENCE",
    "DEFAULT_REFUSAL",
    "FEWEST_STEPS",
    "NEW_MODEL_RATE",
    "PUBLISHED_RATE",
    "Batch",
    "CheckpointError",
    "DeltaShape",
    "Lora",
    "ObjectiveWeights",
    "OptimiserConfig",
    "Recipe",
    "RunOptions",
    "StepTotals",
    "TrainingDivergedError",
    "TrainingPausedError",
    "TrainingReport",
    "choose_size",
    "collate",
    "encode_for",
    "endless_groups",
    "new_delta",
    "remove_checkpoint",
    "save_model",
    "shuffled_groups",
    "split_held_out",
    "train_delta",
    "train_proxy",
    "tune",
    "tune_on",
]
