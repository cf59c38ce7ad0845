"""Adapters: one file a kind, the loader that reads adapter folders, and the directories they may lie in."""

from steering.adapters.adapter import Adapter
from steering.adapters.loader import load_adapter
from steering.adapters.location import adapter_folder

__all__ = ["Adapter", "adapter_folder", "load_adapter"]
