"""The adapter store: a file, or objects in a bucket, that says which adapters all processes serve."""

from server.adapter_store.opening import open_store
from server.adapter_store.store import AdapterStore, StoreError
from server.adapter_store.table import AdapterEntry, AdapterTable

__all__ = ["AdapterEntry", "AdapterStore", "AdapterTable", "StoreError", "open_store"]
