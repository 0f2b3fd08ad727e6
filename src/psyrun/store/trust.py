"""Which HDF5 files PyTables may open: it unpickles attributes as soon as it meets their node."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from psyrun.errors import StoreError
from psyrun.owners import GROUP_AND_OTHERS, mistrust


def check_for_pytables(path: Path) -> None:
    """Look at a file with h5py, which never unpickles, before PyTables opens it.

    Raises
    ------
    StoreError
        Others own the file or can write to it, it has an attribute that PyTables could take for a pickle, or it
        refers to other files. `psyrun.H5Store` opens it without PyTables.
    """
    why = mistrust(path, GROUP_AND_OTHERS)
    if why:
        _refuse(path, why)
    import h5py

    with h5py.File(path, "r") as file:
        _check(path, "/", file)
        file.visititems(lambda name, node: _check(path, f"/{name}", node))


def _refuse(path: Path, why: str) -> None:
    raise StoreError(
        f"{path} {why}. It is not opened for a query: PyTables could run code that it found in there. "
        "Without a query, psyrun.H5Store() loads it, and runs nothing"
    )


def _check(path: Path, name: str, node: Any) -> None:
    """Check one group, data set or named type. `visititems` comes by all of them, once, and follows no links."""
    import h5py

    for number in range(h5py.h5a.get_num_attrs(node.id)):
        attribute = h5py.h5a.open(node.id, index=number)
        attribute.name.decode()  # damaged names end PyTables, and Python with it
        if not _is_harmless(attribute):
            _refuse(path, f"has the attribute {attribute.name.decode()!r} at {name}")
    if isinstance(node, h5py.Group):
        for child in node:
            if not isinstance(node.get(child, getlink=True), h5py.HardLink):
                _refuse(path, f"has the link {child!r} at {name}")
    elif isinstance(node, h5py.Dataset) and (node.is_virtual or node.external):
        _refuse(path, f"has its values of {name} in another file")


def _is_harmless(attribute: Any) -> bool:
    """Whether PyTables cannot take an attribute for a pickle, as it does with bytes that end in a dot.

    See ``AttributeSet.__getattr__`` in tables/attributeset.py and ``_g_getattr`` in tables/hdf5extension.pyx.
    """
    import h5py

    kind = attribute.get_type()
    if attribute.get_space().get_simple_extent_type() == h5py.h5s.NULL:
        return True
    if not isinstance(kind, h5py.h5t.TypeStringID):
        return attribute.dtype.kind in "biufc"
    if kind.is_variable_str():
        return bool(kind.get_cset() == h5py.h5t.CSET_UTF8)  # text to PyTables, and no bytes
    # As it is in the file: h5py shows text up to a NUL, behind which there can be more.
    text = np.zeros(attribute.shape, f"V{kind.get_size()}")
    attribute.read(text, mtype=kind)
    return not any(value.tobytes().rstrip(b"\0").endswith(b".") for value in text.reshape(-1))
