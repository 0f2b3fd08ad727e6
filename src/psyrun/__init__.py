"""Run one model over many parameter values, on a laptop or a cluster, and never lose a finished one.

>>> import psyrun
>>> psyrun.map_pspace(lambda x: {'y': x * x}, psyrun.Param(x=[1, 2]))
{'x': [1, 2], 'y': [1, 4]}
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "1.0.0.dev0"

# Names are imported from their modules when first used: `psy-doit list` needs none of them.
_MODULES = {
    "Param": "psyrun.pspace",
    "Choice": "psyrun.sampling",
    "LatinHypercube": "psyrun.sampling",
    "Random": "psyrun.sampling",
    "Repeat": "psyrun.sampling",
    "Sobol": "psyrun.sampling",
    "map_pspace": "psyrun.mapper",
    "map_pspace_parallel": "psyrun.mapper",
    "map_pspace_hdd_backed": "psyrun.mapper",
    "AutodetectStore": "psyrun.store",
    "NpzStore": "psyrun.store",
    "H5Store": "psyrun.store",
    "PickleStore": "psyrun.store",
    "TableStore": "psyrun.store",
    "ImmediateRun": "psyrun.scheduler",
    "Multiprocessing": "psyrun.scheduler",
    "Slurm": "psyrun.scheduler",
    "Sqsub": "psyrun.scheduler",
    "DistributeBackend": "psyrun.backend",
    "LoadBalancingBackend": "psyrun.backend",
    "AmbiguousOperationError": "psyrun.errors",
    "load": "psyrun.results",
}

__all__ = [
    "AmbiguousOperationError",
    "AutodetectStore",
    "Choice",
    "DistributeBackend",
    "H5Store",
    "ImmediateRun",
    "LatinHypercube",
    "LoadBalancingBackend",
    "Multiprocessing",
    "NpzStore",
    "Param",
    "PickleStore",
    "Random",
    "Repeat",
    "Slurm",
    "Sobol",
    "Sqsub",
    "TableStore",
    "load",
    "map_pspace",
    "map_pspace_hdd_backed",
    "map_pspace_parallel",
]

if TYPE_CHECKING:
    from psyrun.backend import DistributeBackend, LoadBalancingBackend
    from psyrun.errors import AmbiguousOperationError
    from psyrun.mapper import map_pspace, map_pspace_hdd_backed, map_pspace_parallel
    from psyrun.pspace import Param
    from psyrun.results import load
    from psyrun.sampling import Choice, LatinHypercube, Random, Repeat, Sobol
    from psyrun.scheduler import ImmediateRun, Multiprocessing, Slurm, Sqsub
    from psyrun.store import AutodetectStore, H5Store, NpzStore, PickleStore, TableStore


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        value = getattr(import_module(_MODULES[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'psyrun' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(_MODULES))
