"""Small JPEGs of pictures, as data URIs, or a word on why there is none."""

import base64
import hashlib
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from curation.errors import LvdError
from curation.ingest.rows import read_sample
from curation.pictures.decode import DecodeConfig, decode
from curation.ranges import RangeReader
from curation.schema import image_id
from curation.shard.read import ShardReader
from pipelines.report.pictures import Picture
from pipelines.rows.parts import Part, row_table

SIDE_PX = 128  # shown at 96, so that dense screens see no blur
JPEG_QUALITY = 70
# What all thumbnails of a page may weigh in base64; the rest of the page is a few 100 kB at most.
PAGE_BYTES = 5_000_000
# A picture being decoded takes up to 200 MB under the default caps, so few at a time.
DECODE_THREADS = 2


@dataclass(frozen=True)
class Thumbnail:
    """A picture's JPEG as a data URI, or why there is none."""

    uri: str | None
    why: str = ""


class Originals:
    """The bytes of pictures: of kept ones from the shards, of others from the sources where these still are.

    Args:
        dataset_dir: the dataset's folder.
        parts: the run's parts, or None where its intermediate data is gone.
        pictures: all that will be asked for.
    """

    def __init__(self, dataset_dir: str, parts: Sequence[Part] | None, pictures: Iterable[Picture]) -> None:
        self._shards = ShardReader(dataset_dir, max_indexes=16)  # of pictures from anywhere
        self._numbers = {shard.name: number for number, shard in enumerate(self._shards.shards)}
        self._ranges = RangeReader()
        self._places = _places(parts, pictures) if parts is not None else {}

    def read(self, picture: Picture) -> bytes | Thumbnail:
        """The picture's bytes, or a thumbnail that says why they are not to be had."""
        try:
            if picture.shard is not None and picture.shard_index is not None:
                return self._shards.read_image(self._numbers[picture.shard], picture.shard_index)
            if picture.row not in self._places:
                return Thumbnail(None, "source not known any more")
            data = read_sample(self._ranges, self._places[picture.row], waits_s=())
        except (OSError, LvdError, KeyError):
            return Thumbnail(None, "cannot be read any more")
        if image_id(hashlib.sha256(data).digest()) != picture.image_id:
            return Thumbnail(None, "source has changed since")
        return data

    def close(self) -> None:
        """Close the files."""
        self._shards.close()
        self._ranges.close()

    def __enter__(self) -> "Originals":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _places(parts: Sequence[Part], pictures: Iterable[Picture]) -> dict[int, dict[str, Any]]:
    rows = sorted({p.row for p in pictures if p.shard is None and is_decodable(p)})
    try:
        table = row_table(parts, np.array(rows, np.int64), ("path", "offset", "num_bytes"))
    except (LvdError, OSError):
        return {}
    return dict(zip(rows, table.to_pylist(), strict=True))


def is_decodable(picture: Picture) -> bool:
    """Whether describe could decode it; what it refused is not tried again, since it may kill decoders."""
    return picture.stage != "describe"


def make_thumbnails(
    pictures: Sequence[Picture], originals: Originals, *, config: DecodeConfig, max_bytes: int = PAGE_BYTES
) -> dict[int, Thumbnail]:
    """A thumbnail for every picture, by global row.

    Args:
        pictures: in the order of the page, repeated where it shows one twice: each time costs bytes.
        originals: where their bytes are.
        config: caps of the decoder.
        max_bytes: what all of them may take; those that would pass it are left out.
    """
    unique = {picture.row: picture for picture in pictures}
    with ThreadPoolExecutor(DECODE_THREADS) as pool:
        made = pool.map(lambda picture: _make(picture, originals, config), unique.values())
        found = dict(zip(unique, made, strict=True))
    times = Counter(picture.row for picture in pictures)
    left = max_bytes
    for row, thumbnail in found.items():
        cost = len(thumbnail.uri or "") * times[row]
        if cost > left:
            found[row] = Thumbnail(None, "left out to keep the page small")
        else:
            left -= cost
    return found


def _make(picture: Picture, originals: Originals, config: DecodeConfig) -> Thumbnail:
    if not is_decodable(picture):
        return Thumbnail(None, picture.reason.replace("_", " "))
    data = originals.read(picture)
    if isinstance(data, Thumbnail):
        return data
    decoded = decode(data, need_side_px=SIDE_PX, config=config)
    if decoded.pixels is None:
        return Thumbnail(None, (decoded.reason or "cannot be decoded").replace("_", " "))
    return Thumbnail(thumbnail_of(decoded.pixels))


def thumbnail_of(pixels: UInt8[np.ndarray, "h w 3"]) -> str:
    """The data URI of a picture's thumbnail."""
    text = base64.b64encode(encode_thumbnail(pixels)).decode("ascii")
    return f"data:image/jpeg;base64,{text}"


def encode_thumbnail(pixels: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """A JPEG of at most `SIDE_PX` on its longer side, with no metadata.

    Args:
        pixels: uint8 (h, w, 3), RGB, upright.
    """
    image = Image.fromarray(pixels)
    image.thumbnail((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC, reducing_gap=2.0)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return out.getvalue()
