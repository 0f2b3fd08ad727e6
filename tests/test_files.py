"""Small files are written whole, and errors name them."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from psyrun.files import sync_directory, write_json, write_new

WRITES: dict[str, Callable[[Path], None]] = {
    "new": lambda path: write_new(path, b"text"),
    "json": lambda path: write_json(path, {}),
    "directory": sync_directory,
}


@pytest.mark.parametrize("what", WRITES)
def test_an_error_of_the_system_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """fsync(2) tells of none."""

    def refuse(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    place = tmp_path if what == "directory" else tmp_path / "f"
    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="No space left on device") as caught:
        WRITES[what](place)
    assert caught.value.filename == str(place)
