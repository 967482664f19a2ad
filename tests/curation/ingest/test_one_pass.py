"""Bytes that come once, as Arrow's files."""

import gzip
import io

import pyarrow as pa

from curation.ingest.one_pass import arrow_file, arrow_unpacked


def test_arrow_reads_a_stream_that_does_not_seek() -> None:
    table = pa.table({"x": [1, 2, 3]})
    out = io.BytesIO()
    with pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table)
    with pa.ipc.open_stream(arrow_file(io.BytesIO(out.getvalue()).read)) as stream:
        assert stream.read_all().equals(table)


def test_what_is_packed_is_unpacked_on_the_way() -> None:
    data = bytes(range(256)) * 100
    assert arrow_unpacked(io.BytesIO(gzip.compress(data)).read, "gzip")(len(data) + 1) == data
