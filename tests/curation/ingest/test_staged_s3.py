"""What is staged from an object store is what is staged from a disk."""

import gzip
import lzma
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from s3_server import S3

from curation.ingest.sources import HuggingFaceSource, ParquetSource, Source, TarSource, WarcSource
from curation.ingest.stage_unit import stage_unit
from curation.ingest.staging import Place
from curation.ingest.units import cut_units

RECORD = (
    b"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: http://a/b.png\r\n"
    b"WARC-Record-ID: <urn:uuid:00000000-0000-0000-0000-000000000000>\r\nWARC-Date: 2024-01-01T00:00:00Z\r\n"
    b"Content-Type: application/http; msgtype=response\r\nContent-Length: %d\r\n\r\n%s\r\n\r\n"
)


def write_all(root: Path, write_tar: Callable[..., Path]) -> None:
    members = {f"{i}.{ext}": f"{i}{ext}".encode() * 3000 for i in range(5) for ext in ("jpg", "json")}
    plain = write_tar(root.parent / "plain.tar", members).read_bytes()
    for folder in ("tars", "parquet", "arrow", "labels/cat", "warc"):
        (root / folder).mkdir(parents=True)
    (root / "tars" / "a.tar.gz").write_bytes(gzip.compress(plain))
    (root / "tars" / "b.tar.xz").write_bytes(lzma.compress(plain))
    table = pa.table({"image": [bytes([i]) * 5000 for i in range(30)], "n": list(range(30))})
    pq.write_table(table, root / "parquet" / "a.parquet", row_group_size=7)
    with (
        pa.OSFile(str(root / "arrow" / "data.arrow"), "wb") as out,
        pa.ipc.new_stream(out, table.schema) as w,
    ):
        w.write_table(table, max_chunksize=8)
    (root / "arrow" / "state.json").write_text('{"_data_files": [{"filename": "data.arrow"}]}')
    (root / "labels" / "cat" / "a.png").write_bytes(b"a")
    http = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n\r\n" + b"png" * 1000
    (root / "warc" / "a.warc.gz").write_bytes(gzip.compress(RECORD % (len(http), http)) * 3)


KINDS: list[tuple[str, type[Source], int]] = [
    ("tars", TarSource, 10),
    ("parquet", ParquetSource, 30),
    ("arrow", HuggingFaceSource, 30),
    ("labels", HuggingFaceSource, 1),
    ("warc", WarcSource, 3),
]


@pytest.mark.parametrize(("folder", "kind", "num_rows"), KINDS, ids=[name for name, _, _ in KINDS])
def test_a_store_gives_what_a_disk_gives(
    tmp_path: Path, write_tar: Callable[..., Path], folder: str, kind: type[Source], *, num_rows: int, s3: S3
):
    root = tmp_path / "in"
    write_all(root, write_tar)
    url = s3.upload(root / folder, folder)
    found = []
    for way, path in (("disk", str(root / folder)), ("store", url)):
        rows = []
        for number, unit in enumerate(cut_units(kind(path=path))):
            place = Place(tmp_path / way / f"{number}", f"{number}")
            place.out.mkdir(parents=True)
            staged = stage_unit(kind(path=path), unit, place, before=None)
            assert not staged.problems
            rows += staged.table.to_pylist()
        found.append(rows)
    assert len(found[0]) == len(found[1]) == num_rows
    names = ("key", "offset", "num_bytes", "sidecars", "reason")
    assert [[r[n] for n in names] for r in found[0]] == [[r[n] for n in names] for r in found[1]]
    for file in sorted((tmp_path / "disk").rglob("*.tar")):
        assert file.read_bytes() == (tmp_path / "store" / file.relative_to(tmp_path / "disk")).read_bytes()
