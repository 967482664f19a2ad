"""Text that somebody else wrote, line by line: whichever Unicode it is in, however its lines end.

A list is told by its first bytes: a byte order mark, or the zeros that UTF-16 and UTF-32 have between ASCII
letters. What is no UTF-8 is turned into it on the way, so that all who read lines see one encoding.
"""

import codecs
import io

# A longer line is cut there, and is no row any more.
MAX_LINE_BYTES = 1 << 20
_CHUNK_BYTES = 1 << 18
_LOOK_BYTES = 1 << 16  # of the start, by which the encoding and the line ends are told
# In this order: the mark of UTF-32 begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# Where zeros stand among the first four bytes of ASCII letters. Source: RFC 4627, §3.
_ZEROS: dict[tuple[bool, ...], str] = {
    (False, True, True, True): "utf-32-le",
    (True, True, True, False): "utf-32-be",
    (False, True, False, True): "utf-16-le",
    (True, False, True, False): "utf-16-be",
}
_NO_UTF8 = b"\xff"  # stands for what cannot be decoded, so that the line that has it can be told


def encoding_of(start: bytes) -> tuple[str, int]:
    """The encoding of a text that starts so, and the bytes of its mark; UTF-8 where nothing tells another."""
    for mark, encoding in _MARKS:
        if start.startswith(mark):
            return encoding, len(mark)
    zeros = tuple(byte == 0 for byte in start[:4])
    return _ZEROS.get(zeros, "utf-8"), 0


def decode_text(data: bytes) -> str:
    """A whole text in whichever Unicode it is.

    Raises:
        UnicodeDecodeError: when it is in none.
    """
    encoding, num_mark = encoding_of(data)
    return data[num_mark:].decode(encoding)


def open_text(stream: io.IOBase) -> io.IOBase:
    """The bytes of a text as UTF-8 without a mark, lines ended by a newline; a place counts in these."""
    start = stream.read(_LOOK_BYTES)
    stream.seek(0)
    encoding, num_mark = encoding_of(start)
    is_old_mac = b"\r" in start and b"\n" not in start
    if encoding == "utf-8" and not num_mark and not is_old_mac:
        return stream
    return io.BufferedReader(_Recoded(stream, encoding, num_mark, is_old_mac=is_old_mac), _CHUNK_BYTES)


class _Recoded(io.RawIOBase):
    """A text in another encoding, or with a mark, as plain UTF-8; a place is found by reading up to it."""

    def __init__(self, stream: io.IOBase, encoding: str, num_mark: int, *, is_old_mac: bool) -> None:
        self._stream, self._encoding, self._num_mark = stream, encoding, num_mark
        self._is_old_mac = is_old_mac
        self._restart()

    def _restart(self) -> None:
        self._stream.seek(self._num_mark)
        self._decoder = codecs.getincrementaldecoder(self._encoding)()
        self._held, self._at, self._ended = memoryview(b""), 0, False

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence != io.SEEK_SET:
            raise io.UnsupportedOperation("a text is sought from its start")
        if offset < self._at:
            self._restart()
        while self._at < offset and (passed := min(offset - self._at, self._fill())):
            self._take(passed)
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        num_bytes = min(len(buffer), self._fill())
        buffer[:num_bytes] = self._take(num_bytes)
        return num_bytes

    def _take(self, num_bytes: int) -> memoryview:
        taken, self._held = self._held[:num_bytes], self._held[num_bytes:]
        self._at += num_bytes
        return taken

    def _fill(self) -> int:
        """Bytes that can be taken now; 0 at the end."""
        while not self._held and not self._ended:
            data = self._stream.read(_CHUNK_BYTES)
            self._ended = not data
            self._held = memoryview(self._recode(data))
        return len(self._held)

    def _recode(self, data: bytes) -> bytes:
        recoded = data if self._encoding == "utf-8" else self._decoded(data)
        return recoded.replace(b"\r", b"\n") if self._is_old_mac else recoded

    def _decoded(self, data: bytes) -> bytes:
        pieces = []
        while True:
            try:
                pieces.append(self._decoder.decode(data, final=self._ended).encode())
                return b"".join(pieces)
            except UnicodeDecodeError as error:
                self._decoder.reset()  # what it held back stands at the start of the error's bytes
                pieces += [error.object[: error.start].decode(self._encoding).encode(), _NO_UTF8]
                data = error.object[error.end :]


class Lines:
    """The lines of a text from some byte on, and the byte at which the next one starts.

    Bytes that are not UTF-8 become lone surrogates, so that the row that has them can be told.
    """

    def __init__(self, stream: io.IOBase, offset: int = 0) -> None:
        self.offset = offset
        self._stream = stream
        stream.seek(offset)

    def __iter__(self) -> "Lines":
        return self

    def __next__(self) -> str:
        line = self._stream.readline(MAX_LINE_BYTES)
        if not line:
            raise StopIteration
        self.offset += len(line)
        rest = line
        while rest and not rest.endswith(b"\n") and (rest := self._stream.readline(MAX_LINE_BYTES)):
            self.offset += len(rest)
        return line.decode("utf-8", "surrogateescape")


def is_utf8(text: str) -> bool:
    """Whether a text from `Lines` has no bytes that were not UTF-8."""
    return text.isascii() or not any("\ud800" <= c <= "\udfff" for c in text)


def without_odd_bytes(text: str) -> str:
    """A text from `Lines` with the replacement character for each byte that was not UTF-8."""
    return text if is_utf8(text) else "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in text)
