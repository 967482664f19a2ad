"""The frames that an AVIF's codec is asked to make, which need not be of the size that the container says."""

import struct
from collections.abc import Iterator, Sequence

# Boxes that hold the ones looked for, and how many bytes stand in front of the boxes within.
CONTAINERS = {b"meta": 4, b"moov": 0, b"trak": 0, b"mdia": 0, b"minf": 0, b"stbl": 0}
MAX_BOXES = 10_000
MAX_ITEMS = 100_000  # and pieces of items
MAX_OVERLAP = 8  # times the file that its items may take up, each counted whole
MAX_UNITS = 100_000  # open bitstream units, of all items together
SEQUENCE_HEADER = 1
HEADER_BYTES = 160  # more than the longest sequence header takes up to its sizes


def refuse_avif(data: bytes, *, max_pixels: int) -> tuple[str, str] | None:
    """Whether the codec would be asked for more pixels than a picture may have.

    libavif checks a frame against its container when it is decoded, and memory taken: a file of 3 kB that
    calls itself 64 x 64 px took 520 MB. So sequence headers are read here, of every item and track.

    Returns:
        A reason and what is wrong, in words; or None, also where the container cannot be read.
    """
    total, num_units, num_bytes = 0, 0, 0
    known: dict[tuple[tuple[int, int], ...], tuple[int, int]] = {}
    try:
        for extents in _items(data):
            if extents not in known:
                num_bytes += sum(min(end, len(data)) - start for start, end in extents if start < len(data))
                if num_bytes > MAX_OVERLAP * len(data):
                    return "metadata_bomb", "items that overlap"
                known[extents] = _largest_frame(b"".join(data[start:end] for start, end in extents))
            pixels, units = known[extents]
            total, num_units = total + pixels, num_units + units
            if pixels > max_pixels:
                return "too_many_pixels", f"a frame of {pixels} pixels"
            if num_units > MAX_UNITS:
                return "metadata_bomb", f"more than {MAX_UNITS} units of the bitstream"
    except (struct.error, IndexError):  # cut short, or no such container: the decoder's matter
        return None
    if total > 2 * max_pixels:  # the picture and its opacity; thumbnails are small
        return "too_many_pixels", f"frames of {total} pixels together"
    return None


def _boxes(data: bytes, start: int, end: int, budget: list[int]) -> Iterator[tuple[bytes, int, int]]:
    """Type, start and end of the body of every box, containers entered (ISO/IEC 14496-12, §4.2)."""
    while start + 8 <= end and budget[0] > 0:
        budget[0] -= 1
        num_bytes, kind = struct.unpack_from(">I4s", data, start)
        body = start + 8
        if num_bytes == 1:
            (num_bytes,) = struct.unpack_from(">Q", data, body)
            body += 8
        stop = min(end, start + num_bytes) if num_bytes else end
        if stop < body:
            return
        if kind in CONTAINERS:
            yield from _boxes(data, body + CONTAINERS[kind], stop, budget)
        else:
            yield kind, body, stop
        start = stop


def _items(data: bytes) -> Iterator[tuple[tuple[int, int], ...]]:
    """Where the bytes of every item, and of every track's first chunk, lie: (start, end)s in the file."""
    boxes = list(_boxes(data, 0, len(data), [MAX_BOXES]))
    inner = next((body for kind, body, _ in boxes if kind == b"idat"), 0)
    for kind, body, _ in boxes:
        if kind == b"iloc":
            yield from _item_extents(data, body, inner)
        elif kind in (b"stco", b"co64") and struct.unpack_from(">I", data, body + 4)[0]:
            (offset,) = struct.unpack_from(">I" if kind == b"stco" else ">Q", data, body + 8)
            yield ((offset, len(data)),)


def _item_extents(data: bytes, body: int, inner: int) -> Iterator[tuple[tuple[int, int], ...]]:
    """The item location box (ISO/IEC 14496-12, §8.11.3)."""
    version, sizes = data[body], struct.unpack_from(">H", data, body + 4)[0]
    offset_size, length_size, base_size = sizes >> 12, sizes >> 8 & 15, sizes >> 4 & 15
    index_size = sizes & 15 if version else 0
    wide = version >= 2
    (count,) = struct.unpack_from(">I" if wide else ">H", data, body + 6)
    position = body + (10 if wide else 8)
    num_pieces = 0
    for _ in range(min(count, MAX_ITEMS)):
        position += 4 if wide else 2
        method = 0
        if version:
            method = struct.unpack_from(">H", data, position)[0] & 15
            position += 2
        position += 2
        base, (num,) = (
            _integer(data, position, base_size),
            struct.unpack_from(">H", data, position + base_size),
        )
        position += base_size + 2
        num_pieces += num
        if num_pieces > MAX_ITEMS:
            return
        extents = []
        for _ in range(num):
            position += index_size
            start = base + _integer(data, position, offset_size) + (inner if method == 1 else 0)
            length = _integer(data, position + offset_size, length_size)
            extents.append((start, start + length if length else len(data)))
            position += offset_size + length_size
        yield tuple(extents)


def _integer(data: bytes, position: int, size: int) -> int:
    return int.from_bytes(data[position : position + size], "big")


def _largest_frame(item: bytes) -> tuple[int, int]:
    """Pixels of the largest frame that a sequence header allows, and units walked (AV1, §5.3).

    What is no bitstream ends the walk at once: its first bit, or its type, is none.
    """
    pixels, num_units, position = 0, 0, 0
    while position < len(item) and num_units <= MAX_UNITS:
        first = item[position]
        kind = first >> 3 & 15
        if first & 0x80 or kind == 0 or (8 < kind < 15):
            break
        position += 2 if first & 4 else 1
        size = len(item) - position
        if first & 2:
            size, position = _leb128(item, position)
        if kind == SEQUENCE_HEADER:
            pixels = max(pixels, _frame_of(item[position : position + min(size, HEADER_BYTES)]))
        position += size
        num_units += 1
    return pixels, num_units


def _leb128(item: bytes, position: int) -> tuple[int, int]:
    value = 0
    for place in range(8):
        byte = item[position]
        position += 1
        value |= (byte & 0x7F) << (7 * place)
        if not byte & 0x80:
            break
    return value, position


class _Bits:
    """Reads numbers of any width from a byte string; beyond its end stand zeros."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data, "big"), 8 * len(data)

    def __call__(self, width: int) -> int:
        self._left -= width
        shifted = self._value >> self._left if self._left >= 0 else self._value << -self._left
        return shifted & ((1 << width) - 1)


def _frame_of(header: Sequence[int] | bytes) -> int:
    """Width x height of a sequence header (AV1, §5.5)."""
    bits = _Bits(bytes(header))
    bits(4)  # profile, still picture
    if bits(1):  # reduced header
        bits(5)
    else:
        _skip_operating_points(bits)
    width_bits, height_bits = bits(4) + 1, bits(4) + 1
    return (bits(width_bits) + 1) * (bits(height_bits) + 1)


def _skip_operating_points(bits: _Bits) -> None:
    delay_bits = 0
    if bits(1):  # timing
        bits(64)
        if bits(1):  # equal intervals: a number in Elias' code
            zeros = 0
            while zeros < 32 and not bits(1):
                zeros += 1
            bits(zeros)
        if bits(1):  # a model of the decoder
            delay_bits = bits(5) + 1
            bits(42)
    has_display_delay = bits(1)
    for _ in range(bits(5) + 1):
        bits(12)
        if bits(5) > 7:
            bits(1)
        if delay_bits and bits(1):
            bits(2 * delay_bits + 1)
        if has_display_delay and bits(1):
            bits(4)
