"""Opens the adapter store that a setting names."""

from __future__ import annotations

from pathlib import Path

from server.adapter_store.bucket import BucketStore
from server.adapter_store.local_file import LocalFileStore
from server.adapter_store.store import AdapterStore, StoreError


def open_store(location: str) -> AdapterStore:
    """The store at a path, or at a URL that fsspec knows, such as `s3://bucket/adapters.json`.

    Raises `StoreError` where it cannot be opened.
    """
    if "://" in location:
        return BucketStore(location)
    path = Path(location).absolute()
    if not path.parent.is_dir():
        raise StoreError(f"the adapter store {path} cannot be opened: there is no directory {path.parent}")
    return LocalFileStore(path)
