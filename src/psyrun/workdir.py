"""The work directory of a task: every path below it, and how a plan comes to stand there."""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psyrun.errors import RefusedError, TaskError, TemporaryError, trouble
from psyrun.files import json_checksum, random_name, renamed, replacing, sync_directory, write_json
from psyrun.owners import GROUP_AND_OTHERS, mistrust, remedy

if TYPE_CHECKING:
    from typing_extensions import Self

FORMAT = 1
_MARKER = ".psyrun"
_PLAN_DIGITS = 4
_RANDOM = "[0-9a-f]{16}"
_BESIDE = re.compile(rf"\..*\.{_RANDOM}(\..*)?")
_BEAT = re.compile(rf"\.?{_RANDOM}")
_PART_BESIDE = re.compile(rf"\.{_RANDOM}-[as]-0(\.{_RANDOM}\.tmp)?")
_DAY = 86400


class Workdir:
    """Paths below ``psy-work/<task>/``. Making one touches nothing.

    Parameters
    ----------
    path : Path
    """

    def __init__(self, path: Path):
        self.path = path
        self.marker = path / _MARKER
        self.plans = path / "plan"
        self.beats = path / "beat"
        self.parts = path / "parts"
        self.manifest = path / "manifest.json"
        self.logs = path / "log"
        self.submissions = path / "submit"
        self.archive = path / "archive"

    def exists(self) -> bool:
        """Whether the directory is there and ours."""
        return self.marker.is_file()

    def check_there(self) -> None:
        """Raise a TemporaryError if the directory was removed while a command works in it."""
        if not self.exists():
            raise TemporaryError(
                f"{self.path}: the work directory is gone; it was removed or moved while it was in use. Move it back, "
                "or type the command again to begin anew"
            )

    def create(self) -> None:
        """Make the directory and what stands in every one; the marker first, so that a kill leaves no riddle."""
        try:
            self.path.parent.mkdir(mode=0o775, parents=True, exist_ok=True)
            for link in (self.path.parent, self.path):
                if link.is_symlink() and not link.exists():
                    raise TaskError(f"{link}: is a link to {link.readlink()}, which is not there. Make that directory")
            self.path.mkdir(mode=0o700, exist_ok=True)
            if not self.exists():
                foreign = any(_MARKER not in name for name in os.listdir(self.path))
                if foreign and not self.exists():  # another command may have made it in between
                    raise RefusedError(
                        f"{self.path}: holds files that are not psyrun's. "
                        "Move them away, or set another workdir in the task file"
                    )
                self.path.chmod(0o700)
                write_json(self.marker, {"format": FORMAT})
            for directory in (self.plans, self.beats, self.parts, self.logs, self.submissions):
                directory.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise trouble(error.filename or self.path, error) from error

    def check_format(self) -> None:
        """Raise a RefusedError if another version of psyrun wrote the directory in another format."""
        if not self.exists():
            return
        try:
            found = json.loads(self.marker.read_text())["format"]
        except (OSError, ValueError, KeyError, TypeError):
            found = None
        if type(found) is not int:
            mended = json.dumps({"format": FORMAT})
            raise RefusedError(
                f"{self.marker}: was damaged, so nothing here is touched. If this psyrun wrote the directory, mend it: "
                f"echo {shlex.quote(mended)} > {shlex.quote(str(self.marker))}"
            )
        if found != FORMAT:
            raise RefusedError(
                f"{self.path}: has format {found}, this psyrun takes {FORMAT}. "
                f"To convert it, with the version that wrote it: psy-doit merge {self.path} all.npz; "
                f"then move it away, and with this one: psy-doit adopt {self.path.name} all.npz"
            )

    def check_trust(self) -> None:
        """Raise a RefusedError if others could have put code or pickled values there."""
        for path in (self.path, self.marker, self.plans, self.parts, self.submissions):
            if path.exists() and (why := mistrust(path, GROUP_AND_OTHERS)):
                raise RefusedError(f"{path}: {why}, so nothing in it is trusted. {remedy(path, self.path)}")

    def plan_ids(self) -> list[str]:
        """Return the ids of all plans, the newest last."""
        try:
            names = os.listdir(self.plans)
        except FileNotFoundError:
            return []
        return sorted((n for n in names if n.isascii() and n.isdecimal()), key=int)

    def new_plan(self, after: str | None) -> Place:
        """Return the place of the plan that follows another (None: the first)."""
        return Place(self.plans, f"{int(after or 0) + 1:0{_PLAN_DIGITS}}")

    def new_submission(self, name: str) -> Place:
        """Return the place of a submission."""
        return Place(self.submissions, name)

    def read_manifest(self) -> dict[str, Any]:
        """Return what the result holds, {} if nothing is known: without, the record tells."""
        try:
            content: dict[str, Any] = json.loads(self.manifest.read_text())
            whole = content.pop("checksum") == json_checksum(content)
        except (OSError, ValueError, AttributeError, KeyError, TypeError):
            return {}
        return content if whole and content.get("format") == FORMAT else {}

    def write_manifest(self, content: Mapping[str, Any]) -> None:
        """Note what the result holds."""
        content = {"format": FORMAT, **content}
        write_json(self.manifest, {**content, "checksum": json_checksum(content)})

    def part_paths(self) -> Iterator[Path]:
        """Yield the files of the record, by name."""
        if self.parts.is_dir():
            for name in sorted(os.listdir(self.parts)):
                if not name.startswith(".") and (self.parts / name).is_file():
                    yield self.parts / name

    def archived(self, *paths: Path) -> Path | None:
        """Move what is superseded into one new directory of the archive.

        Returns
        -------
        Path or None
            Where the last of them went; None if there was nothing to move.
        """
        target = None
        for path in paths:
            if not path.exists():
                continue
            if target is None:
                number = len(list(self.archive.glob("*"))) + 1
                directory = self.archive / f"{number:04}-{random_name(4)}"
            target = directory / (path.relative_to(self.path) if path.is_relative_to(self.path) else path.name)
            try:
                for made in (self.archive, directory, target.parent):
                    made.mkdir(mode=0o700, exist_ok=True)
                _move(path, target)
            except FileNotFoundError:
                continue  # another command was faster
            except OSError as error:
                raise trouble(path, error, f"cannot be moved to {target}") from error
        return target

    def sweep(self, result: Path) -> None:
        """Remove what killed commands left beside the places of files, and heartbeats, once untouched for a day.

        Parameters
        ----------
        result : Path
            A file that was just written: it tells the time by the file system's own clock. What was left beside it
            goes, too.
        """
        ours = rf"\.+{re.escape(result.stem)}\.{_RANDOM}{re.escape(result.suffix)}(\.{_RANDOM}\.tmp)?"
        where = [
            (self.path, _BESIDE),
            (self.plans, _BESIDE),
            (self.submissions, _BESIDE),
            (self.beats, _BEAT),
            (self.parts, _PART_BESIDE),
            (result.parent, re.compile(ours)),
        ]
        with suppress(OSError):
            now = result.stat().st_mtime
            held = {path.suffix[1:] for path in self.plans.glob("*/held/*")}
            for folder, names in where:
                for path in [folder / name for name in os.listdir(folder) if names.fullmatch(name)]:
                    # A heartbeat of who holds something tells that it is dead, and since when.
                    if now - path.lstat().st_mtime > _DAY and path.name not in held:
                        _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir():
        import shutil

        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink()


def _move(path: Path, target: Path) -> None:
    """Move a file or directory, durably; a file also to another file system."""
    try:
        renamed(path, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        with replacing(target) as beside:
            import shutil

            shutil.copy2(path, beside)
        path.unlink()
    sync_directory(target.parent)
    sync_directory(path.parent)


class Place:
    """A directory that is put in place by one rename, unless another process put one of that name there first.

    No lock is needed: renaming a directory onto one that is not empty fails on every file system.
    """

    def __init__(self, parent: Path, name: str):
        self.name = name
        self.path = parent / name
        self.beside = parent / f".{name}.{random_name()}"

    def __enter__(self) -> Self:
        self.beside.mkdir(mode=0o700)
        return self

    def commit(self) -> bool:
        """Put the directory in place; return whether it is this one that stands there now."""
        sync_directory(self.beside)
        try:
            renamed(self.beside, self.path)
        except OSError:
            if not self.path.is_dir():
                raise
            return False
        sync_directory(self.path.parent)
        return True

    def __exit__(self, *exc: object) -> None:
        if self.beside.exists():
            _remove(self.beside)
