"""Identity keys: 128 bits that two assignments share exactly when they are the same work.

A key is two independent 64-bit lanes. Each lane is the sum modulo 2**64, over the parameters, of a mixed hash of
(name, value); equal rows are told apart by their occurrence number. ``docs/keys.md`` has the encoding and golden
values; neither changes without a new `VERSION`.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt

from psyrun.arrays import Array, is_masked
from psyrun.errors import UnsupportedValueError

VERSION = 1
"""Version of the encoding; part of every plan."""

Lanes = npt.NDArray[np.uint64]
"""Keys of n rows: array of shape (n, 2)."""

# The finaliser of SplitMix64: Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (2014).
_MULTIPLIERS = np.array([0xBF58476D1CE4E5B9, 0x94D049BB133111EB], dtype=np.uint64)
_INVERSE = np.array([pow(int(m), -1, 2**64) for m in _MULTIPLIERS], dtype=np.uint64)
_SHIFTS = np.array([30, 27, 31], dtype=np.uint64)

_INTEGER, _FLOAT, _DIGEST = 0, 1, 2
# One constant a kind of value and lane: the first digits of pi's fraction.
_KINDS = np.array(
    [
        [0x243F6A8885A308D3, 0x13198A2E03707344],
        [0xA4093822299F31D0, 0x082EFA98EC4E6C89],
        [0x452821E638D01377, 0xBE5466CF34E90C6C],
    ],
    dtype=np.uint64,
)
_OCCURRENCE = np.array([0x9E3779B97F4A7C15, 0xD1B54A32D192ED03], dtype=np.uint64)

_ATTOSECONDS = {"as": 1, "fs": 10**3, "ps": 10**6, "ns": 10**9, "us": 10**12, "ms": 10**15, "s": 10**18}
_ATTOSECONDS |= {"m": 60 * 10**18, "h": 3600 * 10**18, "D": 86400 * 10**18, "W": 604800 * 10**18}


def mix(words: Lanes) -> Lanes:
    """Return each 64-bit word scrambled; a bijection."""
    words = words ^ (words >> _SHIFTS[0])
    words = words * _MULTIPLIERS[0]
    words ^= words >> _SHIFTS[1]
    words *= _MULTIPLIERS[1]
    words ^= words >> _SHIFTS[2]
    return words


def value_lanes(name: str, values: Array | Sequence[Any]) -> Lanes:
    """Hash the values of one parameter.

    Parameters
    ----------
    name : str
        The parameter.
    values : array, shape (n, ...), or sequence of n values

    Returns
    -------
    array of uint64, shape (n, 2)

    Raises
    ------
    UnsupportedValueError
        A value that has no stable identity, such as a function.
    """
    try:
        kinds, words = _words(values)
    except UnsupportedValueError as error:
        raise UnsupportedValueError(f"parameter {name!r}: {error}") from None
    own = np.frombuffer(blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).digest(), dtype="<u8")
    return mix(mix(words + _KINDS[kinds]) ^ own.astype(np.uint64))


def finish(lanes: Lanes, occurrence: npt.NDArray[np.int64] | int) -> Lanes:
    """Return the keys of rows from the sums over their parameters and their occurrence numbers."""
    number = np.asarray(occurrence, dtype=np.int64).astype(np.uint64)
    return mix(lanes + (number[..., np.newaxis] + np.uint64(1)) * _OCCURRENCE)


def extended(keys: Lanes, name: str, value: Any) -> Lanes:
    """Return the keys that rows have with one more parameter, the same in all of them.

    Possible because `mix` can be undone, and because a key is a sum over the parameters.

    >>> bool((extended(assignment_key({"x": 1})[np.newaxis], "y", 2) == assignment_key({"x": 1, "y": 2})).all())
    True
    """
    longer: Lanes = mix(unmix(keys) + value_lanes(name, [value]))
    return longer


def unmix(words: Lanes) -> Lanes:
    """Return what `mix` made these words of."""
    words = _unshifted(words, 31) * _INVERSE[1]
    return _unshifted(_unshifted(words, 27) * _INVERSE[0], 30)


def _unshifted(words: Lanes, shift: int) -> Lanes:
    """Return x for words that are ``x ^ (x >> shift)``; three times the shift is more than 64 bits."""
    found: Lanes = words ^ (words >> np.uint64(shift)) ^ (words >> np.uint64(2 * shift))
    return found


def order(lanes: Lanes) -> npt.NDArray[np.int64]:
    """Return the stable order that sorts lanes."""
    by_first = np.argsort(lanes[:, 0], kind="stable")
    first = lanes[by_first, 0]
    if (first[1:] == first[:-1]).any():
        return np.lexsort((lanes[:, 1], lanes[:, 0]))
    return by_first


def occurrences(lanes: Lanes) -> npt.NDArray[np.int64]:
    """Return for each row how many equal rows stand before it.

    >>> occurrences(np.array([[1, 1], [2, 2], [1, 1]], dtype=np.uint64))
    array([0, 0, 1])
    """
    rank = np.zeros(len(lanes), dtype=np.int64)
    first = np.sort(lanes[:, 0])
    if not (first[1:] == first[:-1]).any():
        return rank
    by_value = order(lanes)
    ordered = lanes[by_value]
    fresh = np.ones(len(lanes), dtype=bool)
    fresh[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    starts = np.flatnonzero(fresh)
    position = np.arange(len(lanes))
    rank[by_value] = position - starts[np.cumsum(fresh) - 1]
    return rank


def find(needles: Lanes, keys: Lanes) -> npt.NDArray[np.int64]:
    """Return where each needle stands in keys, or -1; the first place if a key is there twice.

    >>> find(np.array([[3, 4], [5, 5]], dtype=np.uint64), np.array([[1, 2], [3, 4]], dtype=np.uint64))
    array([ 1, -1])
    """
    found = np.full(len(needles), -1, dtype=np.int64)
    bits = max(4, len(keys).bit_length() + 1)
    stored, wanted = np.arange(len(keys)), np.arange(len(needles))
    key_words, needle_words = _word(keys), _word(needles)
    while len(stored) and len(wanted):
        # A table of one place for each word; keys that find theirs taken by another key wait for the next table.
        place = (key_words[stored] >> np.uint64(64 - bits)).astype(np.int64)
        table = np.full(2**bits, -1, dtype=np.int64)
        table[place[::-1]] = stored[::-1]  # of assignments to one place the last one stays: here the first key
        at = table[(needle_words[wanted] >> np.uint64(64 - bits)).astype(np.int64)]
        hit = (at >= 0) & _equal(keys, at, needles, wanted)
        found[wanted[hit]] = at[hit]
        wanted = wanted[~hit]
        stored = stored[~_equal(keys, table[place], keys, stored)]
        key_words, needle_words = mix(key_words), mix(needle_words)
    return found


def _word(lanes: Lanes) -> npt.NDArray[np.uint64]:
    """Return one scrambled word for each key."""
    word: npt.NDArray[np.uint64] = mix(lanes[:, 0] + lanes[:, 1] * _OCCURRENCE[0])
    return word


def _equal(
    first: Lanes, at: npt.NDArray[np.int64], second: Lanes, other: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    """Whether the keys at these places are equal."""
    equal: npt.NDArray[np.bool_] = (first[at, 0] == second[other, 0]) & (first[at, 1] == second[other, 1])
    return equal


def assignment_key(assignment: Mapping[str, Any], occurrence: int = 0) -> Lanes:
    """Return the key of one assignment, shape (2,)."""
    total = np.zeros((1, 2), dtype=np.uint64)
    for name, value in assignment.items():
        total = total + value_lanes(name, [value])
    key: Lanes = finish(total, np.array([occurrence]))[0]
    return key


def _words(values: Array | Sequence[Any]) -> tuple[Array, Lanes]:
    """Return kinds, shape (n,), and words, shape (n, 2) (the same word twice for numbers)."""
    if isinstance(values, np.ndarray) and values.ndim == 1 and values.dtype.kind in "biuf":
        numbers = _number_words(values)
        if numbers is not None:
            return numbers[0], np.repeat(numbers[1][:, np.newaxis], 2, axis=1)
    pairs = [canonical(value) for value in values]
    kinds = np.array([kind for kind, _ in pairs], dtype=np.intp)
    words = b"".join(blake2b(p, digest_size=16).digest() if kind == _DIGEST else p * 2 for kind, p in pairs)
    return kinds, np.frombuffer(words, dtype="<u8").reshape(-1, 2).astype(np.uint64)


def _number_words(values: Array) -> tuple[Array, Array] | None:
    """Return kinds and words of an array of real numbers, or None where that takes more than 64 bits."""
    kind, size = values.dtype.kind, values.dtype.itemsize
    if kind in "bi" or (kind == "u" and (size < 8 or not len(values) or values.max() < 2**63)):
        return np.zeros(len(values), dtype=np.intp), values.astype(np.int64).view(np.uint64)
    if kind != "f" or size > 8:
        return None
    with np.errstate(invalid="ignore"):  # signalling NaN
        floats = values.astype(np.float64)
        whole = (np.floor(floats) == floats) & (floats >= -(2.0**63)) & (floats < 2.0**63)
        integers = np.where(whole, floats, 0.0).astype(np.int64)
    floats[np.isnan(floats)] = np.nan
    words = np.where(whole, integers.view(np.uint64), floats.view(np.uint64))
    return np.where(whole, _INTEGER, _FLOAT), words


def canonical(value: Any) -> tuple[int, bytes]:
    """Return the kind of a value and the bytes that stand for it; equal values have equal bytes.

    Raises
    ------
    UnsupportedValueError
        The value is not a number, text, bytes, time, None, or a sequence, array or dict of such.
    """
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if isinstance(value, (np.datetime64, np.timedelta64)):  # NumPy counts durations among the integers
        return _DIGEST, _instant(value)
    if isinstance(value, (bool, int, np.bool_, np.integer)):
        return _integer(int(value))
    if isinstance(value, (float, np.floating)):
        return _real(value)
    if isinstance(value, (complex, np.complexfloating)):
        if value.imag == 0:
            return _real(value.real)
        return _DIGEST, b"c" + _framed(value.real) + _framed(value.imag)
    if value is None:
        return _DIGEST, b"N"
    if isinstance(value, str):
        return _DIGEST, b"s" + str.encode(value, "utf-8", "surrogatepass")
    if isinstance(value, bytes):
        return _DIGEST, b"b" + bytes(value)
    if isinstance(value, np.ndarray) and value.dtype.names is None and not is_masked(value):
        return _DIGEST, _array(np.asarray(value))
    if isinstance(value, (list, tuple, range)):
        return _DIGEST, b"[%d:" % len(value) + b"".join(map(_framed, value))
    if isinstance(value, Mapping):
        pairs = sorted((_framed(k), _framed(v)) for k, v in value.items())
        return _DIGEST, b"{%d:" % len(pairs) + b"".join(k + v for k, v in pairs)
    raise UnsupportedValueError(
        f"{_described(value)} cannot identify an item; it takes numbers, text, bytes, None, datetime64, "
        "and lists, arrays or dicts of these. Give it a name (text) and look it up inside execute."
    )


def _described(value: Any) -> str:
    text = " ".join(repr(value).split())
    return f"{text if len(text) <= 60 else text[:57] + '...'} (a {type(value).__name__})"


def _integer(value: int) -> tuple[int, bytes]:
    if -(2**63) <= value < 2**63:
        return _INTEGER, struct.pack("<q", value)
    try:
        if int(float(value)) == value:
            return _FLOAT, struct.pack("<d", float(value))
    except OverflowError:
        pass
    return _DIGEST, b"q%x/1" % value


def _real(value: Any) -> tuple[int, bytes]:
    if value != value:
        return _FLOAT, struct.pack("<d", np.nan)
    if value.is_integer():
        return _integer(int(value))
    if isinstance(value, np.longdouble) and float(value) != value:
        return _DIGEST, b"q%x/%x" % value.as_integer_ratio()
    return _FLOAT, struct.pack("<d", float(value))


def _instant(value: np.datetime64 | np.timedelta64) -> bytes:
    """Return a point in time or a duration in attoseconds; years and months of durations in months."""
    if np.isnat(value):
        return b"MT" if isinstance(value, np.datetime64) else b"mT"
    unit, step = np.datetime_data(value.dtype)
    if unit in ("Y", "M", "generic"):
        if isinstance(value, np.timedelta64):
            months = int(value.astype(np.int64)) * step * (12 if unit == "Y" else 1)
            return b"mg%d" % months if unit == "generic" else b"mM%d" % months
        value, unit, step = value.astype("M8[D]"), "D", 1
    count = int(value.astype(np.int64)) * step * _ATTOSECONDS[unit]
    return (b"M%d" if isinstance(value, np.datetime64) else b"m%d") % count


def _framed(value: Any) -> bytes:
    kind, payload = canonical(value)
    if kind == _DIGEST:
        return b"\x02" + struct.pack("<Q", len(payload)) + payload
    return bytes([kind]) + payload


def _array(value: Array) -> bytes:
    """Return what the nested list of the same shape and elements gives, faster for numbers."""
    head = b"[%d:" % len(value)
    if not len(value) and value.ndim > 1:
        return head + b"x" + ",".join(map(str, value.shape[1:])).encode()
    if value.ndim > 1:
        return head + b"".join(map(_framed, value))
    numbers = _number_words(value) if value.dtype.kind in "biuf" else None
    if numbers is None:
        return head + b"".join(map(_framed, value.tolist() if value.dtype.kind in "OSU" else value))
    framed = np.empty(len(value), dtype=[("kind", "u1"), ("word", "<u8")])
    framed["kind"], framed["word"] = numbers
    return head + framed.tobytes()
