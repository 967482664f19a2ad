"""JPEG through libjpeg-turbo: what its header says, and a decode that may halve the picture on the way."""

import re
import struct
from dataclasses import dataclass

import numpy as np
import simplejpeg
from jaxtyping import UInt8
from PIL import Image

from curation.pictures.colour import orientation_of, turn_upright

SOI = b"\xff\xd8"
EOI = b"\xff\xd9"
SOS = 0xDA
STANDALONE = frozenset((0x01, *range(0xD0, 0xD8)))  # TEM and RST0..7 carry no length
JPEG_LS = 0xF7  # its SOF55
FRAME_STARTS = frozenset({*range(0xC0, 0xD0), JPEG_LS}) - {0xC4, 0xC8, 0xCC}  # without DHT, JPG, DAC
# Frames that libjpeg does not read: lossless, and hierarchical ones.
FOREIGN_FRAMES = frozenset((0xC3, 0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF, JPEG_LS))
HUFFMAN_8BIT = frozenset((0xC0, 0xC1, 0xC2))  # baseline, extended, progressive
NEXT_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # what ends entropy-coded data

FILL = re.compile(rb"\xff+")
# In front of the first scan: 50 MB of metadata in its largest pieces make 800. Pillow makes objects of each:
# ten million empty ones took it 97 s.
MAX_SEGMENTS = 10_000
MAX_EXIF = 64  # one is usual; Pillow copies all that came before for each: 700 took it 25 s
MAX_MARKERS = 100_000  # within and between scans, restarts not counted

TRUNCATED = "Premature end of JPEG file"  # libjpeg's words
# libjpeg goes on after these, with grey or shifted blocks from there on. Pillow never hears of them.
DAMAGE = (
    "premature end of data segment",
    "bad Huffman code",
    "bad arithmetic code",
    "found marker",
)


@dataclass(frozen=True, slots=True)
class JpegHeader:
    """What stands in front of the first scan."""

    width: int  # as stored, before orientation, px
    height: int
    num_components: int
    frame_marker: int  # SOFn
    precision_bits: int
    orientation: int
    scan_start: int  # offset of the first SOS marker
    components_in_scan: int

    @property
    def is_plain(self) -> bool:
        """Whether libjpeg-turbo's fast interface gives what Pillow would: 8-bit grey or three colours."""
        return (
            self.frame_marker in HUFFMAN_8BIT
            and self.precision_bits == 8
            and self.num_components in (1, 3)
            and min(self.width, self.height) > 0
        )

    @property
    def foreign(self) -> str | None:
        """What a sound file of this kind has that no decoder of ours reads, in words."""
        if self.frame_marker in FOREIGN_FRAMES:
            return f"a lossless or hierarchical frame (marker {self.frame_marker:02x})"
        if self.precision_bits == 12:
            return "12 bits a sample"
        if self.num_components not in (1, 3, 4):
            return f"{self.num_components} components"
        if self.height == 0 and self.width > 0:
            return "its height behind the scan (DNL)"
        return None

    @property
    def is_one_scan(self) -> bool:
        """Whether all pixels come in one scan, so that a missing tail cannot hide."""
        return self.frame_marker != 0xC2 and self.components_in_scan == self.num_components


def read_header(data: bytes) -> JpegHeader | None:
    """Walk the marker segments up to the first scan.

    Returns:
        The header, or None where the segments do not follow one another as they should.

    Raises:
        ValueError: there are so many segments that they are the work, and not the picture.
    """
    frame: tuple[int, int, int, int, int] | None = None
    orientation = 1
    position, num_segments, num_exif = len(SOI), 0, 0
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        num_segments += 1
        if num_segments > MAX_SEGMENTS:
            raise ValueError(f"more than {MAX_SEGMENTS} segments in front of the picture")
        if marker == 0xFF:
            position = _end_of_fill(data, position)
            continue
        if marker in STANDALONE:
            position += 2
            continue
        num_bytes = int.from_bytes(data[position + 2 : position + 4], "big")
        body = position + 4
        if num_bytes < 2 or position + 2 + num_bytes > len(data):
            return None
        if marker == SOS and frame is not None:
            return JpegHeader(*frame, orientation, position, data[body])
        if marker in FRAME_STARTS and num_bytes >= 8:
            bits, height, width, components = struct.unpack_from(">BHHB", data, body)
            frame = (width, height, components, marker, bits)
        elif marker == 0xE1 and data[body : body + 6] == b"Exif\0\0":
            num_exif += 1
            if num_exif > MAX_EXIF:
                raise ValueError(f"more than {MAX_EXIF} segments of EXIF")
            if orientation == 1:
                orientation = _read_orientation(data[body : position + 2 + num_bytes])
        position += 2 + num_bytes
    return None


def _end_of_fill(data: bytes, position: int) -> int:
    """Offset of the last 0xff of those that begin here: the one that a marker begins with."""
    found = FILL.match(data, position)
    return position if found is None else found.end() - 1


def has_more_scans(data: bytes, start: int, *, limit: int) -> bool:
    """Whether more than `limit` scans follow: each costs a pass over all blocks, however few bytes it has.

    Args:
        start: offset to count from; scans before an end-of-image marker count, thumbnails before it do not.
    """
    if data.count(b"\xff\xda", start) <= limit:  # an upper bound at memory speed, enough for nearly all
        return False
    num_scans, position = 0, start
    for _ in range(MAX_MARKERS):
        found = NEXT_MARKER.search(data, position)
        if found is None or found.group() == EOI:
            return False
        position = found.end()
        num_scans += found.group()[1] == SOS
        if num_scans > limit:
            return True
        position += int.from_bytes(data[position : position + 2], "big")
    return True


def choose_reduction(short_side_px: int, need_side_px: int) -> int:
    """By how much the decoder may shrink the picture: 1, 2, 4 or 8.

    Half from twice the need on; a quarter or an eighth only where half as much again as needed is left.
    Other eighths (3/8, 5/8, …) are slower than no scaling at all. Against a full decode, both resized to
    224 px (bicubic): 1.8 grey levels in the mean at exactly twice the need, 0.9 at 2.85 times, 1.3 for a
    quarter at 8.4 times and 3.2 for the eighth that this rule forbids there; 1.5 to 4 times as fast.
    """
    reduction = 2 if short_side_px >= 2 * need_side_px else 1
    while 1 < reduction < 8 and short_side_px >= 1.5 * need_side_px * 2 * reduction:
        reduction *= 2
    return reduction


def decode_plain(
    data: bytes, header: JpegHeader, *, reduction: int
) -> tuple[UInt8[np.ndarray, "h w 3"], bool]:
    """Decode a plain JPEG to upright RGB, shrunk by `reduction` (1, 2, 4, 8) in the DCT domain.

    Returns:
        RGB, uint8, contiguous; and whether the end marker is there. Where it alone lacks, no pixel does.

    Raises:
        ValueError: anything else that libjpeg remarks on, in its words: a truncated file among them.
    """
    try:
        return _decode_strictly(data, header, reduction=reduction), True
    except ValueError as error:
        if TRUNCATED not in str(error) or not header.is_one_scan:
            raise
        try:
            return _decode_strictly(data + EOI, header, reduction=reduction), False
        except ValueError:
            raise error from None


def listen_in(data: bytes, header: JpegHeader) -> str | None:
    """What libjpeg remarks on a file of 8 bits that `decode_plain` does not read; Pillow never hears of it.

    The smallest scale that there is takes all of the entropy decoding and little else.

    Args:
        data: the file, whole; its size was checked.
        header: its header: CMYK, or arithmetic coding.

    Returns:
        libjpeg's words, or None where it said nothing.
    """
    mode = "CMYK" if header.num_components == 4 else "RGB"
    try:
        if simplejpeg.decode_jpeg_header(data)[:2] != (header.height, header.width):
            raise ValueError("two readings of one header")  # as below
        simplejpeg.decode_jpeg(data, mode, min_height=1, min_width=1, min_factor=8)
    except ValueError as error:
        return str(error)
    return None


def _decode_strictly(data: bytes, header: JpegHeader, *, reduction: int) -> UInt8[np.ndarray, "h w 3"]:
    sides = (header.height, header.width)
    if simplejpeg.decode_jpeg_header(data)[:2] != sides:
        raise ValueError("two readings of one header")  # never allocate for a size that was not checked
    height, width = (-(-side // reduction) for side in sides)
    pixels = simplejpeg.decode_jpeg(data, "RGB", min_height=height, min_width=width, min_factor=reduction)
    # libjpeg rounds the sides up, which stretches the picture by up to (reduction - 1) / side. Rounding to
    # the nearest instead cuts the difference from the full decode: at 1/4 from 3.2 to 1.3 grey levels.
    height, width = (max(1, (side + reduction // 2) // reduction) for side in sides)
    return turn_upright(pixels[:height, :width], header.orientation)


def _read_orientation(segment: bytes) -> int:
    exif = Image.Exif()
    try:
        exif.load(segment)
        return orientation_of(exif)
    except Exception:  # garbage in metadata says nothing about the picture, and Pillow raises nearly anything
        return 1
