"""Rows of all parts: names, ids, vectors and columns by their global numbers, against plain Python."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from curation import storage
from curation.errors import IntegrityError
from curation.schema import DESCRIBED, IMAGES
from pipelines.engine.step import FileRef
from pipelines.rows.groups import make_groups
from pipelines.rows.parts import (
    Part,
    gather_vectors,
    in_pools,
    names_of,
    read,
    roles,
    row_table,
    sha256_words,
)
from pipelines.rows.ranks import id_rank

SIZES = (3, 0, 4)
POOLS = ("mine", "web", "web")
IDS = [bytes([i % 5]) * 32 if i != 5 else None for i in range(7)]


def saved(path: Path) -> FileRef:
    sha256, num_bytes = storage.sha256_file(str(path))
    return FileRef(str(path), num_bytes, sha256)


@pytest.fixture
def parts(tmp_path: Path) -> tuple[Part, ...]:
    """Seven rows in three parts, one of them empty; row i is `i.jpg`, its vector (i, -i)."""
    made, offset = [], 0
    nothing = {"num_bytes": 1, "offset": 0, "path": "", "version": "", "sidecars": [], "reason": None}
    for number, (size, pool) in enumerate(zip(SIZES, POOLS, strict=True)):
        rows = range(offset, offset + size)
        images = [nothing | {"key": f"{i}.jpg", "uri": f"/{i}"} for i in rows]
        described = [dict.fromkeys(DESCRIBED.names) | {"sha256": IDS[i]} for i in rows]
        nullable = pa.schema([field.with_nullable(True) for field in DESCRIBED])
        files = [tmp_path / f"{number}-{name}" for name in ("images", "described", "vectors.npy")]
        storage.write_table(files[0], pa.Table.from_pylist(images, IMAGES))
        storage.write_table(files[1], pa.Table.from_pylist(described, nullable))
        np.save(files[2], np.array([[i, -i] for i in rows], np.float16).reshape(-1, 2))
        role = "curated" if pool == "mine" else "uncurated"
        refs = [saved(file) for file in files]
        made.append(Part(number, pool, role, offset, size, refs[0], described=refs[1], embeddings=refs[2]))
        offset += size
    return tuple(made)


def test_names_and_columns(parts: tuple[Part, ...]) -> None:
    assert names_of(parts, [6, 0, 3, 3]) == {0: "mine/0.jpg", 3: "web/3.jpg", 6: "web/6.jpg"}
    assert names_of(parts, iter(())) == {}
    table = row_table(parts, np.array([2, 3, 6]), ("uri", "key"))
    assert table.to_pylist() == [
        {"pool": pool, "uri": f"/{i}", "key": f"{i}.jpg"} for i, pool in ((2, "mine"), (3, "web"), (6, "web"))
    ]
    assert row_table(parts, np.array([], np.int64)).num_rows == 0


def test_vectors_pools_and_roles(parts: tuple[Part, ...]) -> None:
    rows = np.array([1, 2, 5])
    assert gather_vectors(parts, "embeddings", rows).tolist() == [[1, -1], [2, -2], [5, -5]]
    assert gather_vectors(parts, "embeddings", rows[:0]).shape == (0, 2)
    assert in_pools(parts, ["mine"]).tolist() == roles(parts, "curated").tolist() == [True] * 3 + [False] * 4


def test_ids_are_ranked_as_bytes_and_equal_where_they_are(parts: tuple[Part, ...]) -> None:
    ids = [known or bytes(32) for known in IDS]
    words = sha256_words(parts)
    assert [b"".join(int(w).to_bytes(8, "big") for w in row) for row in words] == ids
    order = sorted({one[:16] for one in ids})
    assert id_rank(parts).tolist() == [order.index(one[:16]) for one in ids]


def test_what_has_changed_is_not_read(parts: tuple[Part, ...]) -> None:
    path = Path(parts[0].images.path)
    assert read(parts[0].images, ["key"])["key"].to_pylist() == ["0.jpg", "1.jpg", "2.jpg"]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(IntegrityError, match="A file of the run is damaged") as caught:
        read(parts[0].images)
    assert caught.value.path == str(path)


@pytest.mark.parametrize(
    ("rows", "least", "expected"),
    [
        ((3, 0, 4), 1, [[0], [1, 2]]),
        ((3, 0, 4), 4, [[0, 1, 2]]),
        ((3, 0, 4), 3, [[0], [1, 2]]),
        ((3, 0, 1), 3, [[0], [1, 2]]),
    ],
)
def test_runs_of_parts_close_at_their_rows(
    parts: tuple[Part, ...], rows: tuple[int, ...], least: int, expected: list[list[int]]
) -> None:
    groups = make_groups(parts, rows, rows=least)
    assert [[part.number for part in group] for group in groups] == expected
