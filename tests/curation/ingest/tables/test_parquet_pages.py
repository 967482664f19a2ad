"""Pages that are looked at before they are read: what inflates without measure is not."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from peak_memory import risen_mb

from curation import storage
from curation.ingest.problems import Findings
from curation.ingest.sources import ParquetSource
from curation.ingest.tables.inflation import InflatesError
from curation.ingest.tables.parquet_images import open_parquet, parquet_images
from curation.ingest.tables.parquet_pages import CheckedParquet, _pages

BIG = 280_000_000
SETUP = """
    from curation import storage
    from curation.ingest.tables.parquet_images import parquet_images
    from curation.ingest.problems import Findings
    from curation.ingest.sources import ParquetSource
"""
WORK = """
    findings = Findings()
    images = parquet_images(
        storage.stat(path), ParquetSource(path=path), first=0, stop=None, findings=findings
    )
    assert [i.data for i in images] == [b"1"]
    assert [p.what for p in findings.problems] == ["unpacks_too_large"] * ("bomb" in path)
"""


def zeros_in_a_row() -> pa.Array:
    offsets = pa.array([0, 0, 40_000_000], pa.int32())
    return pa.ListArray.from_arrays(offsets, pa.array(np.zeros(40_000_000, np.int8)))


BOMBS = {
    "a page": lambda: ["", "x" * BIG],
    "a dictionary": lambda: pa.array(["", "x" * BIG]).dictionary_encode(),
    "a list": lambda: pa.array([[], ["x" * BIG]]),
    "values without bytes": zeros_in_a_row,
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_row_group_that_inflates_without_measure_is_not_read(tmp_path: Path, name: str):
    """The row before it has come."""
    column = BOMBS[name]()
    columns = {"image": [b"1", b"2"], "other": column}
    pq.write_table(pa.table({"image": [b"1"], "other": ["x"]}), tmp_path / "small.parquet")
    bomb = tmp_path / "bomb.parquet"
    dictionary = "values" in name
    pq.write_table(
        pa.table(columns), bomb, compression="zstd", row_group_size=1, use_dictionary=dictionary,
        write_statistics=False,
    )  # fmt: skip
    assert bomb.stat().st_size < 200_000
    assert risen_mb(SETUP, WORK, harmless=tmp_path / "small.parquet", tried=bomb) < 50


def lie(path: Path) -> None:
    """Three pages claim 128 MiB each; the footer knows nothing of it."""
    columns = {"image": [b"1"]} | {f"t{i}": ["x" * 2_000_000] for i in range(3)}
    pq.write_table(pa.table(columns), path, compression="zstd", use_dictionary=False, write_statistics=False)
    data = bytearray(path.read_bytes())
    group = pq.read_metadata(path).row_group(0)
    for i in range(1, 4):
        start = group.column(i).data_page_offset
        assert data[start : start + 3] == b"\x15\x00\x15"
        assert data[start + 6] < 128  # the fourth and last byte of the size
        data[start + 3 : start + 7] = b"\xfe\xff\xff\x7f"
    path.write_bytes(data)


def test_a_footer_that_lies(tmp_path: Path):
    path = tmp_path / "a.parquet"
    lie(path)
    findings = Findings()
    source = ParquetSource(path=str(path))
    assert not list(parquet_images(storage.stat(str(path)), source, first=0, stop=None, findings=findings))
    [problem] = findings.problems
    assert problem.what == "unpacks_too_large"
    # What is not read need not be sound.
    source = ParquetSource(path=str(path), columns=())
    [image] = parquet_images(storage.stat(str(path)), source, first=0, stop=None, findings=Findings())
    assert image.data == b"1"


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("codec", ["none", "snappy", "zstd"])
def test_pages_are_found_as_they_were_written(tmp_path: Path, version: str, codec: str):
    """Each value is counted once, and the bytes come to what the footer says."""
    rng = np.random.default_rng(0)
    columns = {
        "text": [f"{i}" * 50 for i in range(5000)],
        "word": ["a", "b"] * 2500,
        "list": [rng.integers(0, 9, i % 7).tolist() for i in range(5000)],
        "null": pa.nulls(5000, pa.int64()),
        "long": ["y" * 5000] * 5000,
    }
    path = tmp_path / "a.parquet"
    pq.write_table(
        pa.table(columns), path, compression=codec, data_page_version=version, data_page_size=4096,
        row_group_size=2000, write_statistics=True,
    )  # fmt: skip
    with storage.open_seekable(str(path)) as stream, CheckedParquet(stream, looks_always=True) as file:
        assert sum(len(batch) for batch in file.iter_batches(7)) == 5000
        for group in range(file.num_row_groups):
            for i in range(file.metadata.num_columns):
                chunk = file.metadata.row_group(group).column(i)
                pages = list(_pages(stream, chunk))
                assert sum(p.num_values for p in pages if p.kind != 2) == chunk.num_values
                assert sum(p.stored for p in pages) < chunk.total_compressed_size
                assert sum(p.plain for p in pages) < chunk.total_uncompressed_size


def test_what_is_large_and_honest_is_read(tmp_path: Path):
    """Few sums are striking, and of those that are it is the pages that count."""
    table = pa.table({"text": ["x" * 1000] * 300_000})
    path = tmp_path / "a.parquet"
    pq.write_table(table, path, compression="zstd", use_dictionary=False, data_page_size=1 << 20)
    with pq.ParquetFile(path) as plain:
        chunk = plain.metadata.row_group(0).column(0)
        assert chunk.total_uncompressed_size > 20 * chunk.total_compressed_size
    with storage.open_seekable(str(path)) as stream:
        for looks_always in (False, True):
            file: Any = CheckedParquet(stream, looks_always=looks_always)
            assert sum(len(batch) for batch in file.iter_batches(1000)) == 300_000


def test_a_damaged_header_is_damage(tmp_path: Path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"a": ["x"]}), path, use_dictionary=False)
    data = path.read_bytes()
    for header in (b"\xff" * 20, b"\x1c" * 20, b"\x15\x00\x15\x03", b"\x18\xff\xff\xff\xff\x0f"):
        path.write_bytes(data[:4] + header + data[4 + len(header) :])
        with open_parquet(str(path)) as file, pytest.raises(pa.ArrowInvalid) as caught:
            list(file.iter_batches())
        assert not isinstance(caught.value, InflatesError)
