"""Rows of parts from dicts, one an item, as tests like to write them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from psyrun.arrays import Array
from psyrun.parts import Writer


def write_rows(
    writer: Writer,
    system: Mapping[str, Array],
    outputs: Sequence[Mapping[str, Any]],
    given: Mapping[str, Array] | None = None,
) -> None:
    """Write one record for each run of items with the same names."""
    first = 0
    for names, run in groupby(outputs, key=tuple):
        alike = list(run)
        at = slice(first, first + len(alike))
        writer.rows(
            {name: column[at] for name, column in system.items()},
            {name: [row[name] for row in alike] for name in names},
            {name: column[at] for name, column in (given or {}).items()},
        )
        first += len(alike)
