"""Vectors that somebody else made."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from peak_memory import risen_mb

from curation import storage
from curation.errors import SourceError
from pipelines.models.precomputed import PrecomputedVectors, has_pool_column

DIM = 8


def unit(num_rows: int, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((num_rows, DIM))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


def column(rows: np.ndarray, kind: str = "fixed") -> pa.Array:
    flat = pa.array(rows.ravel())
    if kind == "fixed":
        return pa.FixedSizeListArray.from_arrays(flat, rows.shape[1])
    return pa.ListArray.from_arrays(np.arange(len(rows) + 1, dtype=np.int32) * rows.shape[1], flat)


def write(path: Path, columns: dict[str, object], **options: object) -> PrecomputedVectors:
    pq.write_table(pa.table(columns), path, **options)
    return PrecomputedVectors(str(path))


@pytest.mark.parametrize("kind", ["fixed", "list"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_lookup_in_any_order_with_gaps(tmp_path: Path, kind: str, dtype: type) -> None:
    rows = unit(50)
    keys = [f"k{i}" for i in range(50)]
    file = write(
        tmp_path / "v.parquet", {"key": keys, "embedding": column(rows.astype(dtype), kind)}, row_group_size=7
    )
    assert file.dim == DIM
    vectors, has = file.lookup(["k49", "none", "k0", "k7", "k0"], "any")
    assert has.tolist() == [True, False, True, True, True]
    # Unit rows of fp16 come back bit for bit, zeros stand where there is none.
    np.testing.assert_array_equal(vectors, np.stack([rows[49], np.zeros(DIM), rows[0], rows[7], rows[0]]))


def test_rows_that_are_not_unit_are_scaled_and_unusable_ones_have_no_vector(tmp_path: Path) -> None:
    rows = np.zeros((5, DIM), np.float32)
    rows[0, :2] = (3, 4)
    rows[2, 0] = np.nan
    rows[3, 1] = 1e-4
    rows[4, 0] = np.inf
    file = write(tmp_path / "v.parquet", {"key": list("abcde"), "embedding": column(rows)})
    vectors, has = file.lookup(list("abcde"), "p")
    assert has.tolist() == [True, False, False, True, False]
    expected = np.zeros((5, DIM), np.float16)
    expected[0, :2] = (0.6, 0.8)
    expected[3, 1] = 1
    np.testing.assert_array_equal(vectors, expected)


@pytest.mark.parametrize("kind", ["fixed", "list"])
def test_null_vectors_are_no_vectors(tmp_path: Path, kind: str) -> None:
    typed = pa.list_(pa.float16(), DIM) if kind == "fixed" else pa.list_(pa.float16())
    rows = unit(2)
    embedding = pa.array([None, list(rows[0]), None, list(rows[1])], typed)
    file = write(tmp_path / "v.parquet", {"key": list("abcd"), "embedding": embedding})
    vectors, has = file.lookup(list("dcba"), "p")
    assert has.tolist() == [True, False, True, False]
    np.testing.assert_array_equal(vectors[[0, 2]], rows[[1, 0]])


def test_pools_keep_equal_keys_apart(tmp_path: Path) -> None:
    rows = unit(3)
    columns = {"key": ["a", "a", "b"], "pool": ["x", "y", "y"], "embedding": column(rows)}
    file = write(tmp_path / "v.parquet", columns)
    vectors, has = file.lookup(["b", "a"], "x")
    assert has.tolist() == [False, True]
    np.testing.assert_array_equal(vectors[1], rows[0])
    np.testing.assert_array_equal(file.lookup(["a"], "y")[0][0], rows[1])


def test_a_key_twice_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"'twin' and 0 more"):
        write(tmp_path / "v.parquet", {"key": ["twin", "a", "twin"], "embedding": column(unit(3))})
    columns = {"key": ["twin", "twin"], "pool": ["x", "x"], "embedding": column(unit(2))}
    with pytest.raises(SourceError, match="x / twin"):
        write(tmp_path / "w.parquet", columns)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="key: text"):
        write(tmp_path / "a.parquet", {"name": ["a"], "embedding": column(unit(1))})
    with pytest.raises(SourceError, match="of float16"):
        write(tmp_path / "b.parquet", {"key": ["a"], "embedding": [1.0]})
    with pytest.raises(SourceError, match="1 nulls"):
        write(tmp_path / "c.parquet", {"key": ["a", None], "embedding": column(unit(2))})
    with pytest.raises(SourceError, match="parquet file"):
        PrecomputedVectors(str(tmp_path / "absent.parquet"))
    (tmp_path / "text.parquet").write_text("no parquet")
    with pytest.raises(SourceError, match="parquet file"):
        PrecomputedVectors(str(tmp_path / "text.parquet"))
    ragged = write(tmp_path / "d.parquet", {"key": ["a", "b"], "embedding": [[1.0, 0.0], [1.0]]})
    with pytest.raises(SourceError, match="differ in length"):
        ragged.lookup(["a", "b"], "p")


def test_what_a_file_says_of_itself(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", {"key": ["a"], "embedding": column(unit(1))})
    write(tmp_path / "b.parquet", {"key": ["a"], "pool": ["p"], "embedding": column(unit(1))})
    assert not has_pool_column(str(tmp_path / "a.parquet"))
    assert has_pool_column(str(tmp_path / "b.parquet"))
    # Keys are not looked at: who looks vectors up finds what is wrong with them.
    pq.write_table(pa.table({"key": ["a", "a"], "embedding": column(unit(2))}), tmp_path / "c.parquet")
    assert not has_pool_column(str(tmp_path / "c.parquet"))
    with pytest.raises(SourceError, match="parquet file"):
        has_pool_column(str(tmp_path / "absent.parquet"))


def test_of_a_remote_file_ranges_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, keys = unit(40_000), [f"{i:05d}" for i in range(40_000)]
    pq.write_table(
        pa.table({"key": keys, "embedding": column(rows)}), tmp_path / "v.parquet", row_group_size=2000
    )
    data = (tmp_path / "v.parquet").read_bytes()
    url = "memory://precomputed/v.parquet"
    fsspec.filesystem("memory").pipe("/precomputed/v.parquet", data)
    read: list[int] = []

    @contextmanager
    def watched(path: str) -> Iterator[Any]:
        with inner(path) as stream:
            plain = stream.read

            def counted(size: int = -1) -> bytes:
                found = plain(size)
                read.append(len(found))
                return found

            stream.read = counted
            yield stream

    inner = storage.open_seekable
    monkeypatch.setattr(storage, "open_seekable", watched)
    assert not has_pool_column(url)
    assert sum(read) < len(data) / 2
    file = PrecomputedVectors(url)
    read.clear()
    found, has = file.lookup(["39999", "absent"], "p")
    assert has.tolist() == [True, False]
    np.testing.assert_array_equal(found[0], rows[39_999])
    assert 0 < sum(read) < len(data) / 2
    fsspec.filesystem("memory").rm("/precomputed/v.parquet")
    with pytest.raises(SourceError, match="Check the path"):
        file.lookup(["39999"], "p")


def test_a_store_that_fails_is_no_bad_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / "v.parquet", {"key": ["a"], "embedding": column(unit(1))})

    def fails(*_args: object, **_more: object) -> None:
        raise TimeoutError("no answer")

    monkeypatch.setattr(pq, "ParquetFile", fails)
    with pytest.raises(SourceError, match="Run again"):
        file.lookup(["a"], "p")


def test_no_keys_and_no_hits(tmp_path: Path) -> None:
    file = write(tmp_path / "v.parquet", {"key": ["a"], "embedding": column(unit(1))})
    vectors, has = file.lookup([], "p")
    assert (vectors.shape, has.shape) == ((0, DIM), (0,))
    assert not file.lookup(["b"], "p")[1].any()


def test_the_supervised_embeddings_of_the_development_data(shared_dir: Path) -> None:
    path = shared_dir / "real" / "mobilenet_embeddings.parquet"
    file = PrecomputedVectors(str(path))
    table = pq.read_table(path)
    picked = [8740, 3, 4000]
    vectors, has = file.lookup([table["key"][i].as_py() for i in picked], "any")
    assert has.all()
    expected = np.array([table["embedding"][i].as_py() for i in picked], np.float16)
    np.testing.assert_array_equal(vectors, expected)


KEYS = {
    "large": pa.large_string(),
    "view": pa.string_view(),
    "dictionary": pa.dictionary(pa.int32(), pa.string()),
    "small dictionary": pa.dictionary(pa.int8(), pa.large_string()),
}


@pytest.mark.parametrize("kind", KEYS)
@pytest.mark.parametrize("with_pool", [False, True])
def test_keys_of_any_text_type(tmp_path: Path, kind: str, with_pool: bool) -> None:
    rows = unit(3)
    columns = {"key": pa.array(["a.jpg", "b.jpg", "c.jpg"], KEYS[kind]), "embedding": column(rows)}
    if with_pool:
        columns["pool"] = pa.array(["p", "p", "p"], KEYS[kind])
    file = write(tmp_path / "v.parquet", columns)
    vectors, has = file.lookup(["c.jpg", "a.jpg"], "p")
    assert has.tolist() == [True, True]
    np.testing.assert_array_equal(vectors, rows[[2, 0]])
    assert file.first_key == "a.jpg"


VECTORS = {
    "list_view": pa.list_view(pa.float32()),
    "large_list_view": pa.large_list_view(pa.float16()),
    "large_list": pa.large_list(pa.float64()),
    "fixed": pa.list_(pa.float32(), DIM),
}


@pytest.mark.parametrize("kind", [*VECTORS, "tensor", "matrix"])
@pytest.mark.parametrize("store_schema", [True, False])
def test_vectors_of_any_list_type(tmp_path: Path, kind: str, store_schema: bool) -> None:
    rows = unit(4)
    if kind in VECTORS:
        values: list[Any] = rows.tolist()
        values[1] = None
        embedding = pa.array(values, VECTORS[kind])
    else:
        shaped = rows.astype(np.float32).reshape((4, DIM) if kind == "tensor" else (4, 2, DIM // 2))
        embedding = pa.FixedShapeTensorArray.from_numpy_ndarray(shaped)
    columns = {"key": list("abcd"), "embedding": embedding}
    file = write(tmp_path / "v.parquet", columns, store_schema=store_schema, row_group_size=3)
    vectors, has = file.lookup(list("dcba"), "p")
    assert file.dim == DIM
    assert has.tolist() == [True, True, kind not in VECTORS, True]
    np.testing.assert_array_equal(vectors[[0, 1, 3]], rows[[3, 2, 0]])


def test_which_keys_a_file_has(tmp_path: Path) -> None:
    embedding = pa.array([[1.0, 0.0], None, [0.0, 1.0]], pa.list_(pa.float32()))
    file = write(tmp_path / "v.parquet", {"key": ["00", "01", "02"], "embedding": embedding})
    assert file.known(["00.jpg", "01", "02", "x"], "p").tolist() == [False, True, True, False]
    assert file.known([], "p").tolist() == []
    columns = {"key": ["a", "a"], "pool": ["x", "y"], "embedding": column(unit(2))}
    file = write(tmp_path / "w.parquet", columns)
    assert (file.known(["a"], "x").tolist(), file.known(["a"], "z").tolist()) == ([True], [False])
    assert file.first_key == "a"


def test_long_keys_and_long_vectors_are_refused_before_they_are_held(tmp_path: Path) -> None:
    pq.write_table(pa.table({"key": ["x"], "embedding": column(unit(1))}), tmp_path / "small.parquet")
    keys = ["k" * 100_000] * 4096
    bomb = pa.table({"key": keys, "embedding": column(unit(4096))})
    pq.write_table(bomb, tmp_path / "keys.parquet", compression="zstd", store_schema=False)
    flat = pa.ListArray.from_arrays([0, DIM, 50_000_000], pa.array(np.zeros(50_000_000, np.float32)))
    pq.write_table(pa.table({"key": ["a", "b"], "embedding": flat}), tmp_path / "flat.parquet")
    assert all((tmp_path / name).stat().st_size < 1 << 20 for name in ("keys.parquet", "flat.parquet"))
    setup = """
        from curation.errors import SourceError
        from pipelines.models.precomputed import PrecomputedVectors
    """
    work = """
        try:
            PrecomputedVectors(path).lookup(["a", "b"], "p")
        except SourceError as error:
            print(error)
    """
    for name in ("keys.parquet", "flat.parquet"):
        assert risen_mb(setup, work, harmless=tmp_path / "small.parquet", tried=tmp_path / name) < 250
    with pytest.raises(SourceError, match="no key of an image"):
        PrecomputedVectors(str(tmp_path / "keys.parquet"))
    file = PrecomputedVectors(str(tmp_path / "flat.parquet"))
    with pytest.raises(SourceError, match="differ in length"):
        file.lookup(["b"], "p")
