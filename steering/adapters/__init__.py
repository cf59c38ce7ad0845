"""What steers: one file a kind, the loader that reads adapter folders, and the registry of what is loaded."""

from steering.adapters.adapter import Adapter, ShiftKind
from steering.adapters.loader import load_adapter
from steering.adapters.location import adapter_folder
from steering.adapters.registry import AdapterRegistry

__all__ = ["Adapter", "AdapterRegistry", "ShiftKind", "adapter_folder", "load_adapter"]
