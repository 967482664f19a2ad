"""Fingerprints of what steps put out, which are the same on any machine, and what differs between two.

Whole numbers, strings, bytes and truth values count to the last bit. Of floats, whose last bits differ
between machines, four weighted sums count, to `TOLERANCE`.
"""

import hashlib
import json
import math
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

WRITE_ANEW = "python -m tests.pipelines.golden_steps"
TOLERANCE = 2e-4  # of the largest value: what one of the sums may differ by


@dataclass(frozen=True)
class Fingerprint:
    """Of the values of one column.

    Args:
        exact: hash of all that is no float.
        floats: their number, how many are not finite, the largest, and the sums; empty where there are none.
    """

    exact: str
    floats: tuple[float, ...] = ()

    def is_like(self, other: "Fingerprint") -> bool:
        """Whether both are of the same values."""
        if self.exact != other.exact or self.floats[:2] != other.floats[:2]:
            return False
        most = max((*self.floats[2:3], *other.floats[2:3]), default=0)
        pairs = zip(self.floats[2:], other.floats[2:], strict=True)
        return all(abs(one - two) <= TOLERANCE * most for one, two in pairs)


@dataclass(frozen=True)
class StepOutput:
    """What a step of one version puts out, by file and column, and the steps whose files it reads."""

    version: int
    reads: tuple[str, ...]
    columns: dict[str, Fingerprint]


def columns_of(path: Path) -> dict[str, Any]:
    """What a file holds, by column where it has any."""
    match path.suffix:
        case ".npy":
            array = np.load(path)
            return {"": [str(array.dtype), list(array.shape), array]}
        case ".parquet":
            table = pq.read_table(path)
            columns = {name: table[name].to_pylist() for name in table.column_names}
            return {"schema": str(table.schema.remove_metadata()), **columns}
        case ".tar":
            with tarfile.open(path) as tar:
                return {"": [_member(tar, info) for info in tar.getmembers()]}
    raise AssertionError(f"no rule says what is in {path.name}")


def _member(tar: tarfile.TarFile, info: tarfile.TarInfo) -> list[Any]:
    opened = tar.extractfile(info)
    assert opened is not None
    data = opened.read()
    return [info.name, json.loads(data) if info.name.endswith(".json") else data]


def column_name(file: str, column: str) -> str:
    """The name of a column in all files that differ in their numbers alone."""
    return f"{re.sub('[0-9]+', 'N', file)} {column}".strip()


def fingerprint(values: Any, *, root: str = "") -> Fingerprint:
    """The fingerprint of plain values, arrays, and lists and mappings of them.

    Args:
        values: their order counts, and so do the names of a mapping.
        root: a folder whose path counts for nothing in strings.
    """
    exact = hashlib.sha256()
    floats: list[np.ndarray] = []
    for value in _leaves(values):
        match value:
            case np.ndarray() if value.dtype.kind == "f":
                floats.append(value.astype(np.float64).ravel())
            case np.ndarray():
                exact.update(value.tobytes())
            case float():
                floats.append(np.array([value]))
            case bytes():
                exact.update(value)
            case str():
                exact.update(_without_place(value, root).encode())
            case _:
                exact.update(repr(value).encode())
        # A float leaves its place, whatever it is.
        exact.update(b"\0" + type(value).__name__.encode() + b"\0")
    return Fingerprint(exact.hexdigest()[:16], _sums(np.concatenate(floats)) if floats else ())


def _without_place(text: str, root: str) -> str:
    """A text that may name a file, without the folder of the run, and the identity that hangs on it."""
    text = text.replace(root, "ROOT") if root else text
    return re.sub("(steps/[a-z_]+)/[0-9a-f]{32}", r"\1/IDENTITY", text)


def _leaves(value: Any) -> Iterator[Any]:
    match value:
        case dict():
            for name in sorted(value):
                yield str(name)
                yield from _leaves(value[name])
        case list() | tuple():
            for one in value:
                yield from _leaves(one)
            yield f"{len(value)} values"
        case _:
            yield value


def _sums(values: np.ndarray) -> tuple[float, ...]:
    finite = np.where(np.isfinite(values), values, 0)
    weights = np.random.default_rng(0).uniform(-1, 1, (4, len(values)))
    weights[0] = 1
    largest = np.abs(finite).max(initial=0)
    # By the root of the number: so many last bits that are drawn by lot add up to as much.
    sums = weights @ finite / math.sqrt(max(len(values), 1))
    rounded = (float(f"{one:.6g}") for one in (largest, *sums))
    return (len(values), int((~np.isfinite(values)).sum()), *rounded)


def differences(golden: Mapping[str, StepOutput], found: Mapping[str, StepOutput]) -> list[str]:
    """What is to be done about every step that does not put out what its golden says."""
    changed = {name: _changed(golden[name], found[name]) for name in found if name in golden}
    lines = []
    for name, columns in changed.items():
        before, now = golden[name], found[name]
        if now.version != before.version:
            lines.append(
                f"{name}: its golden is of version {before.version}, and the step has {now.version}; "
                f"write the goldens anew: {WRITE_ANEW}"
            )
        elif columns and (causes := [read for read in now.reads if changed.get(read)]):
            lines.append(f"{name}: follows from {', '.join(causes)}")
        elif columns:
            lines.append(
                f"{name}: version {now.version} puts out other values than it did, and reads the same: "
                f"{', '.join(columns)}. Mend it, or raise `version` of Step {name!r} and write the goldens "
                f"anew: {WRITE_ANEW}"
            )
    lines += [f"{name}: has no golden; {WRITE_ANEW}" for name in found if name not in golden]
    gone = [name for name in golden if name not in found]
    return lines + [f"{name}: has a golden, and no run does it; {WRITE_ANEW}" for name in gone]


def _changed(golden: StepOutput, found: StepOutput) -> list[str]:
    """The columns that are not what they were."""
    names: Sequence[str] = sorted({*golden.columns, *found.columns})
    nothing = Fingerprint("")
    return [
        name
        for name in names
        if not golden.columns.get(name, nothing).is_like(found.columns.get(name, nothing))
    ]
