"""One family of errors; each knows the exit status of a command that it ends.

Exit statuses: 1 some items failed, 2 task file or option wrong, 3 no such task, 4 refused so as not to lose or mix
results, 75 temporary (disk, lease, digest): the same command later may work.
"""

from __future__ import annotations


class PsyrunError(Exception):
    """Something a user can mend. The message says what was got, what is taken and what to type next."""

    exit_code = 2


class TaskError(PsyrunError):
    """A task file, or an option in it, is wrong."""


class UnsupportedValueError(PsyrunError, TypeError):
    """A value has no stable identity, or a store cannot hold it."""


class AmbiguousOperationError(PsyrunError, RuntimeError):
    """An operation on parameter spaces whose names clash or are unknown."""


class SelectionError(PsyrunError):
    """What was said about items is no list of numbers or condition on parameters, or there are none such."""


class StoreError(PsyrunError):
    """A result file cannot be read or written."""


class NoSuchTaskError(PsyrunError):
    """There is no task file of that name."""

    exit_code = 3


class RefusedError(PsyrunError):
    """Going on could lose or mix results."""

    exit_code = 4


class TemporaryError(PsyrunError):
    """The disk, the queue or another process stands in the way now; later it may not."""

    exit_code = 75


class DrainedError(TemporaryError):
    """Somebody told the workers of a plan to leave before all was done."""


class EarlyStopError(PsyrunError):
    """Items fail alike, so that trying more of them makes no sense."""

    exit_code = 1


class FencedError(TemporaryError):
    """A claim was taken over by another worker while this one was silent."""


class IneffectiveExcludeWarning(UserWarning):
    """A name to exclude from the results is in none of them."""


def text_of(error: BaseException) -> str:
    """Return what an exception says of itself; its class may be the user's, and raise when it is asked."""
    try:
        return str(error)
    except Exception as worse:
        return f"(its text cannot be had: {type(worse).__name__})"


def trouble(path: object, error: OSError, what: str = "") -> TemporaryError:
    """Return what to raise where the system refused something that is about a file.

    >>> print(trouble("psy-work/t", OSError(13, "Permission denied"), "cannot be written"))
    psy-work/t: cannot be written: Permission denied. Mend that, then type the command again; what is finished stays
    """
    told = f"{what}: {error.strerror or error}" if what else f"{error.strerror or error}"
    return TemporaryError(f"{path}: {told}. Mend that, then type the command again; what is finished stays")
