"""Shows how a run goes on: a bar on a terminal, a line now and then elsewhere. Both on standard error."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from typing_extensions import Self

_LINE_SECONDS = 30.0


class Progress:
    """How many items of a run are done.

    Parameters
    ----------
    name : str
        Of the task.
    total : int
        Items that this run computes.
    stream : file
    """

    def __init__(self, name: str, total: int, stream: TextIO):
        self._name = name
        self._total = total
        self._stream = stream
        self._next = time.monotonic() + _LINE_SECONDS

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        return None

    def show(self, done: int, failed: int) -> None:
        """Show the numbers, if it is time."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _LINE_SECONDS
        self.say(f"{self._name}: {done} of {self._total} items" + (f", {failed} failed" if failed else ""))

    def say(self, line: str) -> None:
        """Print a line."""
        print(line, file=self._stream, flush=True)


class Bar(Progress):
    """The same, as a bar with a remaining time."""

    def __init__(self, name: str, total: int, stream: TextIO):
        super().__init__(name, total, stream)
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Self:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = RichProgress(*columns, console=Console(file=self._stream), transient=True)
        self._task = self._bar.add_task(self._name, total=self._total)
        self._bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._bar.stop()

    def show(self, done: int, failed: int) -> None:
        """Show the numbers."""
        failures = f" [red]{failed} failed[/]" if failed else ""
        self._bar.update(self._task, completed=done, description=f"{self._name}{failures}")

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self._bar.console.print(line, markup=False, highlight=False)


class Page:
    """Text on a terminal that takes the place of the one before; what was shown last stays."""

    def __init__(self, stream: TextIO):
        self._stream = stream
        self._live: Any = None

    def __enter__(self) -> Self:
        from rich.console import Console
        from rich.live import Live

        self._live = Live(console=Console(file=self._stream), auto_refresh=False)
        self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._live.stop()

    def show(self, text: str) -> None:
        """Show a text."""
        from rich.text import Text

        self._live.update(Text(text), refresh=True)


def progress(name: str, total: int, stream: TextIO | None = None) -> Progress:
    """Return what fits the stream (default: standard error)."""
    stream = stream or sys.stderr
    return (Bar if stream.isatty() else Progress)(name, total, stream)
