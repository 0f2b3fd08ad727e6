"""The errors and warnings under the name that psyrun 0.8 gave the module."""

from psyrun.errors import (
    AmbiguousOperationError,
    FencedError,
    IneffectiveExcludeWarning,
    NoSuchTaskError,
    PsyrunError,
    RefusedError,
    StoreError,
    TaskError,
    TemporaryError,
    UnsupportedValueError,
)

__all__ = [
    "AmbiguousOperationError",
    "FencedError",
    "IneffectiveExcludeWarning",
    "NoSuchTaskError",
    "PsyrunError",
    "RefusedError",
    "StoreError",
    "TaskError",
    "TemporaryError",
    "UnsupportedValueError",
]
