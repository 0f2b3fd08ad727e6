"""Stores: one file format each for results. `NpzStore` is the default."""

from psyrun.store.base import Store
from psyrun.store.h5 import H5Store
from psyrun.store.npz import NpzStore
from psyrun.store.pickle import PickleStore

__all__ = ["H5Store", "NpzStore", "PickleStore", "Store"]
