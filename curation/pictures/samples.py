"""The samples of a TIFF as they were measured: any number of bands, of any number of bits.

tifffile takes the file apart and imagecodecs unpacks it. What both could be made to allocate is held against
caps before: the picture by what its directory promises, each strip or tile by its share of the picture; the
packings that are taken here are unpacked no further than asked.
"""

import io
from dataclasses import dataclass
from types import ModuleType

import numpy as np
from jaxtyping import Shaped

from curation.errors import is_no_memory
from curation.packages import needing
from curation.pictures.colour import ORIENTATION_TAG, turn_upright
from curation.pictures.formats import sniff
from curation.pictures.tiff import MAX_NUMBERS, ends_early, refuse_tiff, without_thumbnails

MAX_BYTES = 512_000_000  # of a picture's samples; 64 million pixels of four 16-bit bands
MAX_BANDS = 4_096
PLAIN, LZW, DEFLATE, OLD_DEFLATE, PACKBITS, ZSTD = 1, 5, 8, 32946, 32773, 50000
PACKINGS = frozenset((PLAIN, LZW, DEFLATE, OLD_DEFLATE, PACKBITS, ZSTD))
NO_DATA_TAG = 42113  # of GDAL: a sample that stands for none
BLACK_IS_ZERO, RGB = 1, 2  # the photometric interpretations whose samples are measures


@dataclass(frozen=True, slots=True)
class BandSamples:
    """The samples of a picture, or the reason why there are none."""

    # Upright, integers or floats of the file's own width; NaN for the floats that it says are no data.
    values: Shaped[np.ndarray, "h w bands"] | None
    size: tuple[int, int] = (0, 0)  # width and height, upright, px; zeros where unknown
    reason: str | None = None  # one of REASONS["describe"]; None where read
    words: str = ""  # what is wrong


def read_samples(data: bytes, *, max_pixels: int, max_bytes: int = MAX_BYTES) -> BandSamples:
    """Read the first picture of a TIFF that is no thumbnail.

    Args:
        data: the file.
        max_pixels: largest width x height, pixels.
        max_bytes: largest width x height x bands x bytes of a sample.

    Returns:
        The samples, or a reason. Bad data never raises.

    Raises:
        ConfigError: the packages of the extra `bands` are not installed.
        MemoryError: there is none for a picture within the caps.
    """
    with needing("TIFFs of many bands need tifffile and imagecodecs", install="pip install 'lvd[bands]'"):
        import imagecodecs  # noqa: F401  # tifffile would say so only once it finds a packed strip
        import tifffile
    if sniff(data) != "TIFF":
        return BandSamples(None, reason="unsupported_format", words="no TIFF")
    if ends_early(data):
        return BandSamples(None, reason="truncated", words="the file ends before its first directory")
    data = without_thumbnails(data)
    if (refusal := refuse_tiff(data, max_samples=MAX_BANDS)) is not None:
        return BandSamples(None, reason=refusal[0], words=refusal[1])
    tifffile.logger().setLevel("CRITICAL")  # it would tell the console what is told to the row
    try:
        return _read(tifffile, data, max_pixels=max_pixels, max_bytes=max_bytes)
    except MemoryError:
        raise  # the machine's fault: the size of the picture was checked
    except Exception as error:  # on bad data tifffile raises nearly anything, as Pillow does
        if is_no_memory(error):
            raise MemoryError(str(error)) from error
        return BandSamples(None, reason="corrupt", words=str(error) or type(error).__name__)


def _read(tifffile: ModuleType, data: bytes, *, max_pixels: int, max_bytes: int) -> BandSamples:
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages.first
        turn = _orientation(page)
        width, height = page.imagewidth, page.imagelength
        size = (height, width) if turn >= 5 else (width, height)
        if (unknown := _unsupported(page)) is not None:
            return BandSamples(None, size, "unsupported_format", unknown)
        if width < 1 or height < 1 or len(page.dataoffsets) > MAX_NUMBERS:
            return BandSamples(
                None, size, "corrupt", f"{width} x {height} px in {len(page.dataoffsets)} pieces"
            )
        num_bytes = width * height * page.samplesperpixel * page.dtype.itemsize
        if width * height > max_pixels or num_bytes > max_bytes:
            words = f"{width} x {height} px of {page.samplesperpixel} bands are {num_bytes} bytes"
            return BandSamples(None, size, "too_many_pixels", words)
        ends = [at + count for at, count in zip(page.dataoffsets, page.databytecounts, strict=True)]
        if max(ends, default=0) > len(data):
            return BandSamples(
                None, size, "truncated", f"{max(ends)} bytes are promised, {len(data)} are there"
            )
        planes = page.asarray(squeeze=False, maxworkers=1)  # (planes apart, depth, h, w, samples together)
    values = np.moveaxis(planes[:, 0], 0, -2).reshape(height, width, -1)
    if NO_DATA_TAG in page.tags and values.dtype.kind == "f":
        values = np.where(values == page.nodata, np.nan, values)
    native = values.astype(values.dtype.newbyteorder("="), copy=False)
    return BandSamples(turn_upright(native, turn), size)


def _orientation(page: object) -> int:
    tag = getattr(page, "tags", {}).get(ORIENTATION_TAG)
    value = None if tag is None else tag.value
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _unsupported(page: object) -> str | None:
    """What of a picture is no plain measure, in words; None where all is."""
    packing, meaning = int(getattr(page, "compression", 0)), int(getattr(page, "photometric", -1))
    kind, depth = getattr(page, "dtype", None), getattr(page, "imagedepth", 1)
    if packing not in PACKINGS:
        return f"compression {packing} of bands"
    if meaning not in (BLACK_IS_ZERO, RGB):
        return f"photometric interpretation {meaning} of bands"
    if kind is None or kind.kind not in "uif":
        return f"samples of {kind or 'mixed types'}"
    return None if depth == 1 else f"a depth of {depth}"
