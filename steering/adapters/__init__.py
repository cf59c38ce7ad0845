"""What steers: one file a kind, and the loader that reads adapter folders."""

from steering.adapters.adapter import Adapter, ShiftKind
from steering.adapters.loader import load_adapter

__all__ = ["Adapter", "ShiftKind", "load_adapter"]
