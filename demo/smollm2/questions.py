"""Questions about the subjects: some for training, and others, in phrasings that no training sees, for measuring."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Literal

from demo.smollm2.subjects import Kind

HELD_OUT = 2
"""The last phrasings of each kind are for measuring."""
Use = Literal["train", "measure"]


def questions(kinds: Sequence[Kind], use: Use, count: int, seed: int = 0) -> list[str]:
    """At most `count` different questions about these kinds, in random order, the same for the same seed."""
    asked = []
    for kind in kinds:
        phrasings = kind.phrasings[:-HELD_OUT] if use == "train" else kind.phrasings[-HELD_OUT:]
        asked += [phrasing.format(subject) for phrasing in phrasings for subject in kind.subjects]
    rng = random.Random(seed)
    rng.shuffle(asked)
    return asked[:count]


def beginnings(kinds: Sequence[Kind], count: int, seed: int = 0) -> list[str]:
    """At most `count` beginnings of questions about these kinds, in random order, the same for the same seed."""
    begun = [lead.format(subject) for kind in kinds for lead in kind.leads for subject in kind.subjects]
    random.Random(seed).shuffle(begun)
    return [each[0].upper() + each[1:] for each in begun[:count]]
