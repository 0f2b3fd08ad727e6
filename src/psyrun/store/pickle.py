"""Python's pickle: holds any object, and must be read only from files that one trusts."""

from __future__ import annotations

import pickle
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np

from psyrun.arrays import Array
from psyrun.store.base import Store
from psyrun.streams import Column, whole


class PickleStore(Store):
    """Results as ``.pkl``. Loading such a file can run any code that its writer put there."""

    ext: ClassVar[str] = ".pkl"
    holds_objects: ClassVar[bool] = True

    def _write(self, path: Path, data: Mapping[str, Column]) -> None:
        with path.open("xb") as file:
            pickle.dump({name: whole(column) for name, column in data.items()}, file, protocol=4)

    def _read(self, path: Path, names: Collection[str] | None = None) -> dict[str, Array]:
        with path.open("rb") as file:
            data = pickle.load(file)  # noqa: S301 - the documented nature of this store
        return {name: np.asarray(column) for name, column in data.items() if names is None or name in names}
