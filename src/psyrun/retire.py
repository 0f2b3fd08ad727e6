"""Taking rows out of the record: into the archive, so that their items count as not done."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

import numpy as np

from psyrun.files import random_name, renamed, sync_directory
from psyrun.parts import Writer
from psyrun.plan import Indices, Mask
from psyrun.scan import Part
from psyrun.workdir import Workdir


def retire(workdir: Workdir, parts: Iterable[Part], items_of: Callable[[Part], Indices], items: Mask) -> int:
    """Move the rows of some items to the archive; return how many.

    The parts that hold them are written anew without them, and then moved: whatever stops this, no row is lost, and at
    worst nothing has changed. Nobody may be writing to these parts.

    Parameters
    ----------
    workdir : Workdir
    parts : iterable of Part
        Of the code whose rows count.
    items_of : callable
        Which item each row of a part is, -1 for none.
    items : array of bool, shape (n,)
    """
    superseded = []
    n = 0
    for part in parts:
        found = items_of(part)
        gone = (found >= 0) & items[found]
        if gone.any():
            try:
                _write_without(workdir, part, gone)
            except FileNotFoundError:  # another command does the same
                continue
            superseded.append(workdir.parts / part.name)
            n += int(np.count_nonzero(gone))
    workdir.archived(*superseded)
    return n


def _write_without(workdir: Workdir, part: Part, gone: Mask) -> None:
    """Write a part anew, without some rows."""
    name = f"{random_name()}-a-0"
    beside = workdir.parts / f".{name}"
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
    try:
        writer = Writer(descriptor)
        # Rows that were in a result win over others of their item, under the new name too.
        writer.header(part.header | {"replaces": part.header.get("replaces", part.name)})
        at = 0
        for batch in part.batches:
            kept = ~gone[at : at + batch.n_rows]
            at += batch.n_rows
            if kept.any():
                writer.copy(batch.schema, *batch.kept(kept))
        retired = {tuple(key) for key in part.keys[gone].tolist()}
        for failure in part.failures:
            if failure.key not in retired:
                writer.fail(failure)
        os.fsync(descriptor)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
    renamed(beside, workdir.parts / name)
    sync_directory(workdir.parts)
