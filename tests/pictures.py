"""Files that Pillow does not write: 16-bit PNGs of every colour type, and TIFFs out of their tags."""

import struct
import zlib
from collections.abc import Mapping, Sequence

import numpy as np

SIZES = {1: 1, 3: 2, 4: 4}  # bytes of a TIFF's BYTE, SHORT and LONG
CODES = {1: "B", 3: "H", 4: "I"}
DATA = "where the data lies"  # stands for an offset among a tag's values

Tag = tuple[int, Sequence[int | str] | np.ndarray]  # type and values


def png_16(samples: np.ndarray, *, clear: Sequence[int] = ()) -> bytes:
    """A PNG of 16-bit grey, grey and alpha, RGB or RGBA, by the last axis' length; a colour may be clear."""
    height, width, bands = samples.shape
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[bands]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    key = _chunk(b"tRNS", struct.pack(f">{len(clear)}H", *clear)) if clear else b""
    chunks = _chunk(b"IHDR", header) + key + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def tiff(tags: Mapping[int, Tag], data: bytes = b"", *, order: str = "<") -> bytes:
    """A TIFF of one directory, its long values behind it, and its data last."""
    start = 8 + 2 + 12 * len(tags) + 4
    far = sum(num for num in (len(values) * SIZES[kind] for kind, values in tags.values()) if num > 4)
    directory, long_values = struct.pack(order + "H", len(tags)), b""
    for tag, (kind, values) in sorted(tags.items()):
        plain = (
            [start + far if value == DATA else value for value in values]
            if DATA in list(values[:1])
            else values
        )
        raw = np.asarray(plain).astype(f"{order}u{SIZES[kind]}").tobytes()
        directory += struct.pack(order + "HHI", tag, kind, len(values))
        if len(raw) <= 4:
            directory += raw.ljust(4, b"\0")
        else:
            directory += struct.pack(order + "I", start + len(long_values))
            long_values += raw
    head = b"II*\0" if order == "<" else b"MM\0*"
    return head + struct.pack(order + "I", 8) + directory + bytes(4) + long_values + data


def rgb_tags(width: int, height: int, *, compression: int = 1, **more: Tag) -> dict[int, Tag]:
    """The tags of an 8-bit RGB picture without those of its strips or tiles; `more` as t322=…"""
    tags: dict[int, Tag] = {256: (4, [width]), 257: (4, [height]), 258: (3, [8, 8, 8])}
    tags |= {259: (3, [compression]), 262: (3, [2]), 277: (3, [3]), 284: (3, [1])}
    return tags | {int(name[1:]): tag for name, tag in more.items()}
