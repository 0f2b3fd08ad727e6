"""The store that a file's name and content ask for."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from psyrun.arrays import Array
from psyrun.errors import StoreError
from psyrun.store.base import Store
from psyrun.store.h5 import H5Store, has_table
from psyrun.store.npz import NpzStore
from psyrun.store.pickle import PickleStore
from psyrun.store.table import TableStore
from psyrun.streams import Column

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "psyrun.stores"
"""Entry points of other packages: a suffix such as ``.csv``, and a `Store` class."""

_OURS: dict[str, type[Store]] = {".npz": NpzStore, ".h5": H5Store, ".hdf5": H5Store, ".pkl": PickleStore}


class AutodetectStore(Store):
    """Takes the store for each file: by its suffix, and for HDF5 by what is there.

    ``.npz``, ``.h5``, ``.hdf5`` and ``.pkl`` are psyrun's own; an HDF5 file with the table of a `psyrun.TableStore` is
    one for that. For any other suffix, a package that declares it in the entry points ``psyrun.stores`` is asked.
    A ``.pkl`` file can run code when it is loaded, see `psyrun.PickleStore`.

    Its own suffix, for names that have none yet, is that of the default store. What it can do depends on the file:
    see `store_for`.
    """

    ext: ClassVar[str] = NpzStore.ext

    def store_for(self, filename: str | Path) -> Store:
        """Return the store for a file, which need not exist.

        Raises
        ------
        StoreError
            No store has this suffix, or the package that should have it is broken.
        """
        path = Path(filename)
        suffix = path.suffix.lower()
        if suffix not in _OURS:
            return _of_other_packages(path, suffix)
        return TableStore() if _OURS[suffix] is H5Store and has_table(path) else _OURS[suffix]()

    def save(self, filename: str | Path, data: Mapping[str, Sequence[Any] | Column]) -> None:
        """Write columns to a file, in place of what it held. See `Store.save`."""
        self.store_for(filename).save(filename, data)

    def append(self, filename: str | Path, data: Mapping[str, Sequence[Any] | Array]) -> None:
        """Add rows to a file, or make it. See `Store.append`."""
        self.store_for(filename).append(filename, data)

    def _write(self, path: Path, data: Mapping[str, Column]) -> None:
        self.store_for(path)._write(path, data)

    def _read(self, path: Path, names: Collection[str] | None = None) -> dict[str, Array]:
        return self.store_for(path)._whole(path, names)

    def _pieces(self, path: Path, name: str) -> Iterator[Array]:
        return self.store_for(path)._pieces(path, name)

    def _query(self, path: Path, where: str, names: Collection[str] | None) -> tuple[dict[str, Array], int]:
        return self.store_for(path)._asked(path, where, names)


def _of_other_packages(path: Path, suffix: str) -> Store:
    from importlib.metadata import entry_points

    declared = entry_points(group=GROUP)
    points = [point for point in declared if point.name.lower() == suffix]
    if not points:
        known = dict.fromkeys([*_OURS, *(point.name for point in declared)])
        raise StoreError(f"{path}: takes a file name that ends in {', '.join(known)}")
    try:
        store = points[0].load()()
    except Exception as error:  # what other packages do when they are imported
        raise StoreError(f"{path}: {_package(points[0])} has no store for {suffix} that works: {error}") from error
    if not isinstance(store, Store):
        raise StoreError(f"{path}: what {_package(points[0])} has for {suffix} is no psyrun.store.Store: {store!r:.60}")
    return store


def _package(point: EntryPoint) -> str:
    return f"the package {point.dist.name}" if point.dist else f"the entry point {point.value}"


def readable(path: Path, allow_pickle: bool, permission: str) -> Store:
    """Return the store for a file, if reading it runs no code or may.

    Parameters
    ----------
    path : Path
    allow_pickle : bool
        Whether Python objects may be read, which can run code that the writer of the file put there.
    permission : str
        What to say of how to allow it.

    Raises
    ------
    StoreError
        No store has this suffix, or reading the file may not run code.
    """
    store = AutodetectStore().store_for(path)
    if store.holds_objects and not allow_pickle:
        raise StoreError(f"{path}: reading it can run code that its writer put there; {permission}")
    if allow_pickle and isinstance(store, (NpzStore, H5Store)):
        return type(store)(allow_pickle=True)
    return store
