"""An Arrow stream on its way to Arrow, message by message: what inflates without measure is stopped.

Before each compressed buffer stands the number of bytes that it becomes, and Arrow asks for them before it
looks at the data.

Source: Arrow columnar format, "IPC Streaming Format", and its flatbuffers `Message.fbs` and `Schema.fbs`.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from curation.ingest.one_pass import Read
from curation.ingest.tables.inflation import refuse_bomb

_CONTINUES = 0xFFFFFFFF
_DICTIONARY, _BATCH = 2, 3  # of the union of headers
_PREFIX_BYTES = 8  # of a compressed buffer: what it becomes; -1: it is stored as it is


@dataclass(frozen=True, slots=True)
class _Message:
    kind: int
    body_bytes: int
    buffers: list[tuple[int, int]]  # offset in the body and number of bytes; only of compressed ones


class CheckedMessages:
    """The bytes of an Arrow stream; each message is checked before any of it is given.

    Args:
        read: of the file, gone through once.
        num_bytes: of the file: no more is asked for, whatever a message claims.
    """

    def __init__(self, read: Read, num_bytes: int) -> None:
        self._read, self._most = read, num_bytes
        self._held: list[bytes] = []
        self._passed = 0  # bytes of a body that is given as it comes
        self._dictionaries = [0, 0]  # all of them are held along: stored, plain

    def read(self, num_bytes: int) -> bytes:
        """The next bytes.

        Raises:
            InflatesError: when what follows inflates without measure.
            pa.ArrowInvalid: when it is no message.
        """
        pieces = []
        while num_bytes > 0 and (piece := self._piece(num_bytes)):
            pieces.append(piece)
            num_bytes -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _piece(self, num_bytes: int) -> bytes:
        if not self._held and not self._passed:
            self._take_message()
        if self._held:
            first = self._held.pop(0)
            if len(first) > num_bytes:
                self._held.insert(0, first[num_bytes:])
            return first[:num_bytes]
        piece = self._read(min(num_bytes, self._passed, self._most))
        self._passed = self._passed - len(piece) if piece else 0
        return piece

    def _take_message(self) -> None:
        start = self._read(4)
        if start == _CONTINUES.to_bytes(4, "little"):
            start += self._read(4)
        size = int.from_bytes(start[-4:], "little")
        metadata = self._read(min(size, self._most)) if len(start) >= 4 else b""
        self._held = [piece for piece in (start, metadata) if piece]
        if not size or len(metadata) < size:
            return  # the end, or one that Arrow has words for
        try:
            message = _read_message(metadata)
        except (struct.error, IndexError) as error:
            raise pa.ArrowInvalid(f"a message is damaged: {error}") from error
        if not message.buffers:
            self._passed = message.body_bytes
            return
        body = self._read(min(message.body_bytes, self._most))
        self._check(message, body)
        self._held.append(body)

    def _check(self, message: _Message, body: bytes) -> None:
        stored, plain = 0, 0
        for offset, num_bytes in message.buffers:
            claimed = int.from_bytes(body[offset : offset + _PREFIX_BYTES], "little", signed=True)
            plain += num_bytes if claimed < 0 else claimed
            stored += num_bytes
        stored = min(stored, len(body))  # one range may be that of many buffers
        refuse_bomb("a compressed record batch", stored=stored, plain=plain)
        if message.kind == _DICTIONARY:
            self._dictionaries = [self._dictionaries[0] + stored, self._dictionaries[1] + plain]
            refuse_bomb("all dictionaries", stored=self._dictionaries[0], plain=self._dictionaries[1])


def _read_message(data: bytes) -> _Message:
    root = struct.unpack_from("<I", data)[0]
    kind = _scalar(data, _field(data, root, 1), "<B")
    header, body_bytes = _child(data, root, 2), _scalar(data, _field(data, root, 3), "<q")
    if body_bytes < 0:
        raise pa.ArrowInvalid(f"a message claims a body of {body_bytes} bytes")
    batch = _child(data, header, 1) if kind == _DICTIONARY and header else header
    if kind not in (_DICTIONARY, _BATCH) or not batch or not _field(data, batch, 3):
        return _Message(kind, body_bytes, [])
    return _Message(kind, body_bytes, list(_buffers(data, _child(data, batch, 2))))


def _buffers(data: bytes, vector: int) -> Iterator[tuple[int, int]]:
    for number in range(struct.unpack_from("<I", data, vector)[0] if vector else 0):
        offset, num_bytes = struct.unpack_from("<qq", data, vector + 4 + 16 * number)
        if num_bytes:
            yield max(offset, 0), max(num_bytes, 0)


def _field(data: bytes, table: int, number: int) -> int:
    """Where a field of a flatbuffers table lies; 0 where it has none."""
    vtable = table - struct.unpack_from("<i", data, table)[0]
    place = 4 + 2 * number
    if vtable < 0 or place >= struct.unpack_from("<H", data, vtable)[0]:
        return 0
    offset = struct.unpack_from("<H", data, vtable + place)[0]
    return table + offset if offset else 0


def _child(data: bytes, table: int, number: int) -> int:
    """Where the table or vector that a field points at lies; 0 where there is none."""
    place = _field(data, table, number)
    return place + struct.unpack_from("<I", data, place)[0] if place else 0


def _scalar(data: bytes, place: int, kind: str) -> int:
    return struct.unpack_from(kind, data, place)[0] if place else 0
