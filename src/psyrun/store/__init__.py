"""Stores: one file format each for results. `NpzStore` is the default."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from psyrun.store.base import Store
from psyrun.store.npz import NpzStore

# Imported when they are first used: a command needs the default one at most.
_MODULES = {"AutodetectStore": "auto", "H5Store": "h5", "PickleStore": "pickle", "TableStore": "table"}

__all__ = ["AutodetectStore", "H5Store", "NpzStore", "PickleStore", "Store", "TableStore"]

if TYPE_CHECKING:
    from psyrun.store.auto import AutodetectStore
    from psyrun.store.h5 import H5Store
    from psyrun.store.pickle import PickleStore
    from psyrun.store.table import TableStore


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        value = getattr(import_module(f"psyrun.store.{_MODULES[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'psyrun.store' has no attribute {name!r}")
