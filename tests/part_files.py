"""Parts of a run, with as much of their files as a test says."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from curation import storage
from curation.schema import DESCRIBED, VERDICTS
from pipelines.engine.digest import narrowed
from pipelines.engine.step import Attempt, FileRef
from pipelines.rows.parts import Part

KNOWN_BITS = 64  # certain bits of a hash that knows enough


def published(path: Path, content: np.ndarray | pa.Table | None = None) -> FileRef:
    """A file as a step would have left it; without content one that is there."""
    if content is None:
        pass
    elif isinstance(content, pa.Table):
        storage.write_table(path, content)
    else:
        storage.write_vectors(path, content)
    sha256, num_bytes = storage.sha256_file(str(path))
    return FileRef(str(path), num_bytes, sha256)


def sha256_of(name: object) -> bytes:
    return hashlib.sha256(repr(name).encode()).digest()


def described(num_rows: int, **columns: Sequence[Any]) -> pa.Table:
    """Pictures of one size that know all bits of their hashes, but for the columns that are given."""
    plain: dict[str, Any] = {
        "num_bytes": 100,
        "width": 20,
        "height": 10,
        "certain_bits": KNOWN_BITS,
        "has_embedding": True,
        "warnings": [],
    }
    filled = {name: [plain.get(name)] * num_rows for name in DESCRIBED.names} | columns
    return pa.Table.from_pydict(filled, schema=DESCRIBED)


def make_part(
    folder: Path,
    number: int,
    *,
    offset: int,
    vectors: np.ndarray,
    pool: str = "web",
    role: Any = "uncurated",
    verdicts: Sequence[str | None] | None = None,
    **columns: Sequence[Any],
) -> Part:
    """A part with `described`, `embeddings` and `verdicts`; ids are those of pool, number and place."""
    num_rows, name = len(vectors), f"{pool}-{number}"
    folder.mkdir(parents=True, exist_ok=True)
    columns = {"sha256": [sha256_of((pool, number, row)) for row in range(num_rows)]} | columns
    images = published(folder / f"images-{name}.npy", np.arange(num_rows))
    reasons = pa.table({"reason": pa.array(verdicts or [None] * num_rows, pa.string())}, schema=VERDICTS)
    return Part(
        number,
        pool,
        role,
        offset,
        num_rows,
        images,
        described=published(folder / f"described-{name}.parquet", described(num_rows, **columns)),
        embeddings=published(folder / f"vectors-{name}.npy", vectors.astype(np.float16)),
        verdicts=published(folder / f"verdicts-{name}.parquet", reasons),
    )


def unit_rows(seed: int, num_rows: int, *, dim: int = 16, num_centres: int = 5) -> np.ndarray:
    """fp16 unit rows around a few centres."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((num_centres, dim))[rng.integers(num_centres, size=num_rows)]
    rows = rows + 0.3 * rng.standard_normal((num_rows, dim))
    return np.asarray((rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16))


def attempt_at(task: Any, out: Path) -> Attempt[Any]:
    """What the engine calls a step's work with: the task has what it says it reads alone."""
    out.mkdir(parents=True, exist_ok=True)
    return Attempt(narrowed(task), None, out)
