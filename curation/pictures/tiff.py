"""What a TIFF's first directory asks for, read before a decoder allocates for it."""

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from PIL.TiffImagePlugin import COMPRESSION_INFO

# Numbers of tags, TIFF 6.0 and its supplements.
SUBFILE_TYPE, OLD_SUBFILE_TYPE, WIDTH, HEIGHT, BITS, COMPRESSION = range(254, 260)
PHOTOMETRIC = 262
STRIP_OFFSETS, SAMPLES, STRIP_COUNTS, PLANAR = 273, 277, 279, 284
TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_COUNTS, SUB_IFDS, DNG_VERSION = 322, 323, 324, 325, 330, 50706
REDUCED, MASK, OLD_REDUCED = 1, 4, 2  # two bits of the new tag, a value of the old one
MAX_DIRECTORIES = 16  # that are looked at for one that is no thumbnail
CAMERA_RAW = frozenset((32803, 34892))  # photometric: a colour filter array, linear raw

NUM_BYTES = {
    1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8,
}  # fmt: skip
# Types that a size may have.
NUMBERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q"}

# A tile may be larger than the picture, and in pyramids is: 1,024 px of 64 bits each are nothing unusual.
MAX_SPARE_TILE_BYTES = 8 << 20
# Pillow makes a Python object of each: 24 million took 460 MB and 11 s. The largest that a picture needs are
# the 196,608 colours of a 16-bit palette; and its 250,000 tiles of 16 x 16 px, at the default cap on pixels.
MAX_NUMBERS = 262_144
MAX_SAMPLES = 6  # what Pillow reads
TEXTLIKE = frozenset((1, 2, 6, 7))  # bytes, which nobody takes apart


@dataclass(frozen=True, slots=True)
class _Tag:
    kind: int
    count: int
    first: int | None  # the first number; None where it is none, or lies behind the end


@dataclass(frozen=True, slots=True)
class _Directory:
    entries: Mapping[int, _Tag]
    behind: int  # where the next one stands; 0: there is none

    def number(self, tag: int, otherwise: int) -> int:
        found = self.entries[tag].first if tag in self.entries else None
        return otherwise if found is None else found

    def is_picture(self) -> bool:
        """Whether it says that it is neither a thumbnail nor a mask."""
        is_reduced = self.number(OLD_SUBFILE_TYPE, 1) == OLD_REDUCED
        return not self.number(SUBFILE_TYPE, 0) & (REDUCED | MASK) and not is_reduced

    def num_pixels(self) -> int:
        return self.number(WIDTH, 0) * self.number(HEIGHT, 0)


def without_thumbnails(data: bytes) -> bytes:
    """The file with its first picture that is no thumbnail as its first: decoders read that one.

    Where all say that they are thumbnails it is the largest. The file itself where it begins with a picture,
    or `refuse_tiff` has a name for it.
    """
    order, width, at = _layout(data)
    start = place = _first_place(data)
    found: dict[int, _Directory] = {}
    while place not in (0, *found) and len(found) < MAX_DIRECTORIES:
        found[place] = _read_directory(data, place)
        if found[place].is_picture() or SUB_IFDS in found[start].entries:
            break
        place = found[place].behind
    best = max(found, key=lambda place: (found[place].is_picture(), found[place].num_pixels()), default=start)
    if best == start:
        return data
    return data[:at] + struct.pack(order + width, best) + data[at + struct.calcsize(width) :]


def refuse_tiff(data: bytes, *, max_samples: int = MAX_SAMPLES) -> tuple[str, str] | None:
    """Whether a decoder would be asked for more than the picture is worth, or for what none of ours can.

    The size of the picture itself is checked elsewhere. What cannot be read here is left to the decoder.

    Args:
        data: the file.
        max_samples: most samples a pixel that the decoder reads.

    Returns:
        A reason and what is wrong, in words; or None.
    """
    directory = _read_directory(data, _first_place(data))
    entries, number = directory.entries, directory.number
    if DNG_VERSION in entries or number(PHOTOMETRIC, 0) in CAMERA_RAW:
        return "unsupported_format", "raw data of a camera"
    if number(SUBFILE_TYPE, 0) & REDUCED and SUB_IFDS in entries:
        return "unsupported_format", "a thumbnail in front of the raw data of a camera"
    samples, bits = number(SAMPLES, 1), max(1, number(BITS, 1))
    if number(COMPRESSION, 1) not in COMPRESSION_INFO:
        return "unsupported_format", f"compression {number(COMPRESSION, 1)}"
    if samples > max_samples:
        return "unsupported_format", f"{samples} samples a pixel"
    for tag, entry in entries.items():
        is_there = entry.count * NUM_BYTES.get(entry.kind, 1) <= len(data)  # or else nobody reads it
        if entry.count > MAX_NUMBERS and entry.kind not in TEXTLIKE and is_there:
            return "metadata_bomb", f"{entry.count} numbers in tag {tag}"
    if TILE_WIDTH in entries or TILE_HEIGHT in entries:
        tile = number(TILE_WIDTH, 0) * number(TILE_HEIGHT, 0)
        # Planes apart are tiles apart; but who lies about tiles may lie about planes.
        asked = tile * samples * bits // 8
        picture = _up(number(WIDTH, 0)) * _up(number(HEIGHT, 0)) * samples * bits // 8
        if asked > max(picture, MAX_SPARE_TILE_BYTES):
            return "too_many_pixels", f"a tile of {asked} bytes for a picture of {picture}"
    return None


def ends_early(data: bytes) -> bool:
    """Whether the file ends before its first directory."""
    return _first_place(data) >= len(data)


def _up(side_px: int) -> int:
    return -(-side_px // 16) * 16  # tiles have sides of a multiple of 16


def _layout(data: bytes) -> tuple[str, str, int]:
    """The order of bytes, the code of an offset, and where the first directory's stands."""
    order = "<" if data[:2] == b"II" else ">"
    return (order, "Q", 8) if data[2:4] in (b"+\0", b"\0+") else (order, "I", 4)


def _first_place(data: bytes) -> int:
    order, width, at = _layout(data)
    return _offset(data, at, order + width)


def _offset(data: bytes, at: int, code: str) -> int:
    """The offset that stands there; 0 where the file ends before it."""
    return int(struct.unpack_from(code, data, at)[0]) if at + struct.calcsize(code) <= len(data) else 0


def _read_directory(data: bytes, start: int) -> _Directory:
    order, width, _ = _layout(data)
    entry, inline = (f"{order}HHQ", 8) if width == "Q" else (f"{order}HHI", 4)
    step = struct.calcsize(entry) + inline
    found: dict[int, _Tag] = {}
    try:
        (count,) = struct.unpack_from(order + ("Q" if width == "Q" else "H"), data, start)
        position = start + (8 if width == "Q" else 2)
        for _ in range(min(count, 65_535)):
            tag, kind, num = struct.unpack_from(entry, data, position)
            at = position + step - inline
            if num * NUM_BYTES.get(kind, 1) > inline:
                (at,) = struct.unpack_from(order + width, data, at)
            new = _Tag(kind, num, _number(data, at, order, kind))
            found[tag] = _costlier(tag, found[tag], new) if tag in found else new
            position += step
    except struct.error:  # the file ends before its directory does
        return _Directory(found, 0)
    return _Directory(found, _offset(data, position, order + width))


def _costlier(tag: int, one: _Tag, other: _Tag) -> _Tag:
    """Of a tag that stands twice, where Pillow takes the last one and libtiff the first."""
    if one.first is None or other.first is None or one.count != other.count:
        return max(one, other, key=lambda entry: entry.count)
    pick = min if tag in (WIDTH, HEIGHT) else max
    return pick(one, other, key=lambda entry: entry.first or 0)


def _number(data: bytes, at: int, order: str, kind: int) -> int | None:
    code = NUMBERS.get(kind)
    if code is None or at + struct.calcsize(order + code) > len(data):
        return None
    return int(struct.unpack_from(order + code, data, at)[0])
