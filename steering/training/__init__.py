"""Training of steering adapters beside a frozen base; imported by the command line and the demo only."""

from steering.training.data import (
    Batch,
    EncodedExample,
    TrainingDataError,
    TrainingExample,
    encode_examples,
    read_examples,
    shuffled_batches,
)
from steering.training.delta import DeltaConfig, TrainingReport, train_delta
from steering.training.loop import OptimiserConfig, TrainingDivergedError
from steering.training.objectives import ObjectiveWeights

__all__ = [
    "Batch",
    "DeltaConfig",
    "EncodedExample",
    "ObjectiveWeights",
    "OptimiserConfig",
    "TrainingDataError",
    "TrainingDivergedError",
    "TrainingExample",
    "TrainingReport",
    "encode_examples",
    "read_examples",
    "shuffled_batches",
    "train_delta",
]
