"""The steered distribution, computed the naive way, for the engine to be held against.

At every step the whole text is encoded anew and every model does a whole forward pass of its own; then the shifts are
bridged and fused. Nothing is shared with the engine but the vocabulary maps.
"""

from tests.oracle.models import NaiveAdapter, NaiveModel
from tests.oracle.steered import Oracle
from tests.oracle.text import complete_text, history, segments

__all__ = ["NaiveAdapter", "NaiveModel", "Oracle", "complete_text", "history", "segments"]
