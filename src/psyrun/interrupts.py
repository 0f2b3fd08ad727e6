"""What Ctrl-C does: end the program quietly while it has nothing to lose, else be an exception as usual in Python."""

from __future__ import annotations

import signal


def end_quietly() -> None:
    """Have Ctrl-C end this process as if it were no Python program; imports it would interrupt print tracebacks."""
    _set(signal.SIG_DFL)


def be_heard() -> None:
    """Have Ctrl-C raise KeyboardInterrupt."""
    _set(signal.default_int_handler)


def be_over() -> None:
    """Have Ctrl-C do nothing: all that is left to do is to leave."""
    _set(signal.SIG_IGN)


def _set(handler: signal._HANDLER) -> None:
    # Who ignores it was told to, as in the background of a script.
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, handler)
