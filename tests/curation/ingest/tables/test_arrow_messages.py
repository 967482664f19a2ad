"""Messages of Arrow streams, checked on their way: each byte as it came, or none of a bomb."""

import io
import struct

import pyarrow as pa
import pytest

from curation.ingest.tables.arrow_messages import CheckedMessages
from curation.ingest.tables.inflation import InflatesError


def _stream(table: pa.Table, compression: str | None = None) -> bytes:
    out = io.BytesIO()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_stream(out, table.schema, options=options) as writer:
        writer.write_table(table)
    return out.getvalue()


def _through(data: bytes, step: int = 1000) -> bytes:
    checked, pieces = CheckedMessages(io.BytesIO(data).read, len(data)), []
    while piece := checked.read(step):
        pieces.append(piece)
    return b"".join(pieces)


@pytest.mark.parametrize("compression", [None, "zstd", "lz4"])
@pytest.mark.parametrize("step", [1, 7, 1 << 20])
def test_all_bytes_come_through_in_order(compression: str | None, step: int) -> None:
    words = pa.array(["a", "b", "a"] * 50).dictionary_encode()
    data = _stream(pa.table({"n": range(150), "w": words, "t": ["text"] * 150}), compression)
    assert _through(data, step) == data
    assert _through(data[: len(data) // 2], step) == data[: len(data) // 2]  # cut: for Arrow to judge


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_batch_that_inflates_without_measure_is_refused(wrapped: bool) -> None:
    text = "x" * (300 << 20)
    column = pa.array([text], pa.large_string())
    table = pa.table({"t": column.dictionary_encode() if wrapped else column})
    with pytest.raises(InflatesError, match="comes to"):
        _through(_stream(table, "zstd"), 1 << 20)


def test_a_negative_body_is_damage() -> None:
    data = bytearray(_stream(pa.table({"n": range(3)})))
    batch = data.index(struct.pack("<I", 0xFFFFFFFF), 8)  # the second message
    size = struct.unpack_from("<I", data, batch + 4)[0]
    metadata = bytes(data[batch + 8 : batch + 8 + size])
    body = struct.pack("<q", len(data) - batch - 8 - size - 8)
    at = metadata.index(body)
    data[batch + 8 + at : batch + 16 + at] = struct.pack("<q", -1)
    with pytest.raises(pa.ArrowInvalid, match="body of -1 bytes"):
        _through(bytes(data))


def test_a_damaged_message_is_told() -> None:
    data = struct.pack("<II", 0xFFFFFFFF, 8) + b"\xff" * 8
    with pytest.raises(pa.ArrowInvalid, match="damaged"):
        _through(data)
