"""Which store a file gets."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path

import numpy as np
import pytest

from psyrun.columns import KEYS, N_ITEMS
from psyrun.errors import StoreError, UnsupportedValueError
from psyrun.store import AutodetectStore, H5Store, NpzStore, PickleStore, Store, TableStore

AUTO = AutodetectStore()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.npz", NpzStore),
        ("a.b.NPZ", NpzStore),
        ("a.h5", H5Store),
        ("a.hdf5", H5Store),
        ("a.pkl", PickleStore),
    ],
)
def test_the_suffix_chooses(name: str, kind: type[Store], tmp_path: Path) -> None:
    """All of save, append, load and verification are those of the store for it."""
    path = tmp_path / name
    assert type(AUTO.store_for(path)) is kind
    AUTO.save(path, {"x": [1]})
    AUTO.append(str(path), {"x": [2]})
    assert kind().load(path)["x"].tolist() == AUTO.load(path)["x"].tolist() == [1, 2]
    assert AUTO.load(path, row=1, columns=["x"]) == {"x": 2}
    AUTO.save_verified(path, {"x": np.arange(3)})
    assert kind().load(path)["x"].tolist() == [0, 1, 2]


def test_objects_go_where_the_store_for_the_file_holds_them(tmp_path: Path) -> None:
    """And nowhere else."""
    AUTO.save(tmp_path / "a.pkl", {"x": [{}]})
    AUTO.append(tmp_path / "a.pkl", {"x": [{1}]})
    assert AUTO.load(tmp_path / "a.pkl")["x"].tolist() == [{}, {1}]
    with pytest.raises(UnsupportedValueError, match="PickleStore"):
        AUTO.save(tmp_path / "a.npz", {"x": [{}]})


@pytest.mark.parametrize("suffix", [".h5", ".hdf5"])
def test_a_table_is_one_for_the_table_store(suffix: str, tmp_path: Path) -> None:
    """It stays one when rows are added; a column that is named so does not make one."""
    path = tmp_path / f"a{suffix}"
    TableStore().save(path, {"x": [1, 2, 3]})
    assert type(AUTO.store_for(path)) is TableStore
    AUTO.append(path, {"x": [4]})
    assert AUTO.load(path, where="x > 2")["x"].tolist() == [3, 4]
    H5Store().save(path, {"table": [1, 2, 3]})
    assert type(AUTO.store_for(path)) is H5Store
    with pytest.raises(StoreError, match="takes no where"):
        AUTO.load(path, where="table > 2")


@pytest.mark.parametrize("suffix", [".npz", ".h5", ".pkl"])
def test_a_damaged_file_is_told_of_by_its_store(suffix: str, tmp_path: Path) -> None:
    """It is no file of another kind."""
    (tmp_path / f"a{suffix}").write_bytes(b"\0" * 100)
    with pytest.raises(StoreError, match=f"cannot be read as a {suffix} file"):
        AUTO.load(tmp_path / f"a{suffix}")


def test_a_warning_stands_at_the_line_of_the_caller(tmp_path: Path) -> None:
    """As with any store."""
    AUTO.save(tmp_path / "a.npz", {"x": [1], KEYS: np.ones((1, 2), np.uint64), N_ITEMS: np.array(2)})
    with pytest.warns(UserWarning, match="1 of 2 items") as caught:
        AUTO.load(tmp_path / "a.npz")
    assert [warning.filename for warning in caught] == [__file__]


@pytest.mark.parametrize("name", ["a", "a.txt", ".npz", "a.npz.gz"])
def test_an_unknown_suffix_is_an_error_that_names_the_known(name: str, tmp_path: Path) -> None:
    """For all that one can do with it."""
    (tmp_path / name).touch()
    for act in (AUTO.load, lambda path: AUTO.save(path, {}), lambda path: AUTO.append(path, {}), AUTO.store_for):
        with pytest.raises(StoreError, match=r"takes a file name that ends in \.npz, \.h5, \.hdf5, \.pkl"):
            act(tmp_path / name)


# Stores of other packages


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with several stores, one of them good."""
    site = tmp_path / "site"
    information = site / "other-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(
        "[psyrun.stores]\n.TOY = toy_stores_of_other:Good\n.bad = not_there:Store\n.odd = builtins:dict\n"
        ".npz = not_there:Store\n"
    )
    (site / "toy_stores_of_other.py").write_text(
        "from psyrun.store import NpzStore\nclass Good(NpzStore):\n    ext = '.toy'\n"
    )
    monkeypatch.syspath_prepend(site)
    return site


def test_other_packages_bring_stores(installed: Path, tmp_path: Path) -> None:
    """By entry points that are named as the suffix."""
    AUTO.save(tmp_path / "a.toy", {"x": [1]})
    assert AUTO.store_for(tmp_path / "a.toy").ext == ".toy"
    assert AUTO.load(tmp_path / "a.toy")["x"].tolist() == [1]
    with pytest.raises(StoreError, match=r"\.npz, \.h5, \.hdf5, \.pkl, .*\.TOY, \.bad, \.odd"):
        AUTO.store_for(tmp_path / "a.xyz")


@pytest.mark.parametrize(
    ("suffix", "told"),
    [
        (".bad", "the package other has no store for .bad that works: No module named 'not_there'"),
        (".odd", "what the package other has for .odd is no psyrun.store.Store: {}"),
    ],
)
def test_a_broken_package_is_named_when_its_suffix_is_asked_for(
    installed: Path, tmp_path: Path, suffix: str, told: str
) -> None:
    """It stands in nobody else's way."""
    assert AUTO.store_for(tmp_path / "a.toy").ext == ".toy"
    with pytest.raises(StoreError, match=re.escape(told)):
        AUTO.store_for(tmp_path / f"a{suffix}")


def test_nobody_is_asked_for_our_own_suffixes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They work where psyrun has no metadata, and others cannot take them over."""

    def entry_points(**kwargs: str) -> None:
        raise AssertionError

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    for suffix in (".npz", ".h5", ".hdf5", ".pkl"):
        AUTO.store_for(tmp_path / f"a{suffix}")


def test_our_own_stores_are_entry_points_too() -> None:
    """As in psyrun 0.8, for whoever looks there."""
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    section = text.split('[project.entry-points."psyrun.stores"]\n')[1].split("\n\n")[0]
    found = dict(re.findall(r'"(.+)" = "(.+)"', section))
    assert sorted(found) == [".h5", ".npz", ".pkl"]
    for suffix, value in found.items():
        store = importlib.metadata.EntryPoint(suffix, value, "psyrun.stores").load()()
        assert store.ext == suffix
