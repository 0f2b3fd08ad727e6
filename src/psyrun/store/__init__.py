"""Stores: one file format each for results. `NpzStore` is the default."""

from psyrun.store.auto import AutodetectStore
from psyrun.store.base import Store
from psyrun.store.h5 import H5Store
from psyrun.store.npz import NpzStore
from psyrun.store.pickle import PickleStore
from psyrun.store.table import TableStore

__all__ = ["AutodetectStore", "H5Store", "NpzStore", "PickleStore", "Store", "TableStore"]
