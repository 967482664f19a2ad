"""A part of images in, their measurements, hashes and vectors out. The one place that decodes pictures."""

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float16, Float32, UInt8, UInt64
from pydantic import BaseModel, ConfigDict, Field, field_validator

from curation import schema
from curation.describe.decode import DecodeConfig, decode
from curation.describe.embed import ALLOWED, EmbedConfig, Embedder, parse_embedder
from curation.describe.filters import pixel_std
from curation.describe.phash import grey32, phash
from curation.describe.views import View, render
from curation.errors import ConfigError

MIN_SIDE_PX = 64  # a decoded short side that leaves the 32 px of the perceptual hash a clean downscale
MIN_AHEAD_ROWS = 64
MEASURE_ROWS = 1024


class DescribeConfig(BaseModel):
    """What is measured of every image; `decode_threads` alone never changes a result."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    embed: EmbedConfig = Field(default_factory=EmbedConfig, description="the semantic embedding")
    descriptor: str | None = Field(
        None, description=f"copy descriptor beside the perceptual hash: {ALLOWED}; none where null"
    )
    descriptor_size_px: int | None = Field(
        None, description="side of the copy descriptor's input; its model's own where null", ge=8
    )
    decode: DecodeConfig = Field(default_factory=DecodeConfig, description="hard caps and allowed formats")
    decode_threads: int = Field(2, description="threads that read and decode ahead of the model", ge=1)

    @field_validator("descriptor")
    @classmethod
    def _is_known(cls, spec: str | None) -> str | None:
        try:
            if spec is not None:
                parse_embedder(spec)
        except ConfigError as error:
            raise ValueError(str(error)) from error  # so that pydantic names the field
        return spec

    @property
    def descriptor_embed(self) -> EmbedConfig | None:
        """How the copy descriptor is made: as the embedding, with its own model and size of input."""
        if self.descriptor is None:
            return None
        if self.descriptor == self.embed.embedder and self.descriptor_size_px is None:
            return self.embed  # one model for both is run once
        return self.embed.model_copy(
            update={"embedder": self.descriptor, "image_size_px": self.descriptor_size_px}
        )


@dataclass(frozen=True)
class Described:
    """A described part: one row, or slot, for every image of it, in its order."""

    table: pa.Table  # schema.DESCRIBED
    embeddings: Float16[np.ndarray, "n d"] | None  # unit rows, zeros where has_embedding is false
    descriptors: Float16[np.ndarray, "n e"] | None  # likewise; the same array if one model gives both
    read_errors: Mapping[int, str] = field(default_factory=dict)  # row → what the source said


def describe(
    num_rows: int,
    read: Callable[[int], bytes],
    *,
    embedder: Embedder | None,
    descriptor: Embedder | None,
    config: DescribeConfig,
    known: Mapping[int, str] | None = None,
    guard: Callable[[int], AbstractContextManager[None]] | None = None,
) -> Described:
    """Read, hash, decode and embed every image of a part, each once.

    The images that share a forward are rows [b·B, (b + 1)·B), whatever the threads do; a row without a
    picture stays in it as zeros. So the result is the same, to the bit, for any `decode_threads`.

    Args:
        num_rows: images in the part.
        read: the bytes of a row; called from several threads; an OSError is that row's reason `unreadable`.
        embedder, descriptor: models, or None; the same object for both is run once.
        config: what to measure.
        known: row → reason, for rows that are not to be read.
        guard: entered, with the row, around the decoding of each row, in the thread that does it.

    Returns:
        The described part.
    """
    models = [embedder] if embedder is not None else []
    if descriptor is not None and descriptor is not embedder:
        models.append(descriptor)
    lanes = [_Lane(model, num_rows) for model in models]
    look = _Look(read, tuple(lane.model.view for lane in lanes), config.decode, known or {}, guard)
    ahead = max([MIN_AHEAD_ROWS, *(lane.model.batch_rows for lane in lanes)])
    greys = np.zeros((num_rows, 32, 32), np.uint8)
    seen: list[_Seen] = []
    for row, image in enumerate(_in_order(num_rows, look, threads=config.decode_threads, ahead=ahead)):
        if image.grey is not None:
            greys[row] = image.grey
        for lane, view in zip(lanes, image.views or [None] * len(lanes), strict=True):
            lane.put(row, view)
        seen.append(replace(image, grey=None, views=()))
    vectors = {id(lane.model): lane.vectors for lane in lanes}
    embeddings = vectors.get(id(embedder))
    return Described(
        _table(seen, greys, embeddings),
        embeddings,
        vectors.get(id(descriptor)),
        {row: image.read_error for row, image in enumerate(seen) if image.read_error is not None},
    )


def with_vectors(
    described: Described,
    vectors: Float16[np.ndarray, "n d"],
    has: Bool[np.ndarray, " n"],
    *,
    into: Literal["embeddings", "descriptors"] = "embeddings",
) -> Described:
    """Put vectors that were made elsewhere into a described part.

    Args:
        described: the part.
        vectors: unit rows.
        has: where there is one; a picture that could not be decoded gets none.
        into: which vectors they are; `has_embedding` follows the embeddings alone.
    """
    has = has & _is_null(described.table["reason"])
    vectors = np.where(has[:, None], vectors, np.float16(0))
    if into == "descriptors":
        return replace(described, descriptors=vectors)
    column = schema.DESCRIBED.get_field_index("has_embedding")
    table = described.table.set_column(column, schema.DESCRIBED.field(column), pa.array(has))
    return replace(described, table=table, embeddings=vectors)


@dataclass(frozen=True, slots=True)
class _Seen:
    """What one look at an image gave."""

    reason: str | None
    sha256: bytes | None = None
    num_bytes: int = 0
    format: str | None = None
    width: int | None = None
    height: int | None = None
    warnings: tuple[str, ...] = ()
    grey: np.ndarray | None = None
    views: tuple[np.ndarray, ...] = ()
    read_error: str | None = None


@dataclass(frozen=True, slots=True)
class _Look:
    """Read, hash, decode and render one row; runs in the threads."""

    read: Callable[[int], bytes]
    views: tuple[View, ...]
    config: DecodeConfig
    known: Mapping[int, str]
    guard: Callable[[int], AbstractContextManager[None]] | None

    def __call__(self, row: int) -> _Seen:
        if row in self.known:
            return _Seen(self.known[row])
        try:
            data = self.read(row)
        except OSError as error:
            return _Seen("unreadable", read_error=f"{type(error).__name__}: {error}")
        sha256 = hashlib.sha256(data).digest()
        need_side_px = max([MIN_SIDE_PX, *(view.need_side_px for view in self.views)])
        with self.guard(row) if self.guard is not None else nullcontext():
            decoded = decode(data, need_side_px=need_side_px, config=self.config)
        pixels = decoded.pixels
        rendered = {} if pixels is None else {view: render(pixels, view) for view in self.views}
        return _Seen(
            decoded.reason,
            sha256,
            len(data),
            decoded.format,
            decoded.width,
            decoded.height,
            decoded.warnings,
            grey=None if pixels is None else grey32(pixels),
            views=tuple(rendered[view] for view in self.views) if rendered else (),
        )


def _in_order(num_rows: int, look: _Look, *, threads: int, ahead: int) -> Iterator[_Seen]:
    """Every row's look in row order, at most `ahead` rows decoded or in work at once."""
    pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
    try:
        waiting: deque[Future[_Seen]] = deque()
        for row in range(num_rows):
            waiting.append(pool.submit(look, row))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


class _Lane:
    """One model's way through a part: a batch is filled row by row and run when its last row has come."""

    def __init__(self, model: Embedder, num_rows: int) -> None:
        self.model = model
        self.vectors = np.zeros((num_rows, model.dim), np.float16)
        self._batch = np.zeros((model.batch_rows, model.view.side_px, model.view.side_px, 3), np.uint8)
        self._filled = np.zeros(model.batch_rows, bool)

    def put(self, row: int, view: UInt8[np.ndarray, "s s 3"] | None) -> None:
        slot = row % self.model.batch_rows
        if view is not None:
            self._batch[slot] = view
            self._filled[slot] = True
        is_last = row + 1 == len(self.vectors)
        if is_last or slot + 1 == self.model.batch_rows:
            self._run(row - slot)

    def _run(self, first: int) -> None:
        if self._filled.any():
            made = self.model.embed(self._batch)
            made[~self._filled] = 0  # what the model makes of an empty slot is nobody's vector
            self.vectors[first : first + len(made)] = made[: len(self.vectors) - first]
        self._batch[:] = 0
        self._filled[:] = False


def _table(
    seen: list[_Seen],
    greys: UInt8[np.ndarray, "n 32 32"],
    embeddings: Float16[np.ndarray, "n d"] | None,
) -> pa.Table:
    hashes, spreads = _measure(greys)
    is_lost = np.array([image.reason is not None for image in seen], dtype=bool)
    has_embedding = np.zeros_like(is_lost) if embeddings is None else ~is_lost & embeddings.any(axis=1)
    columns = {
        "sha256": [image.sha256 for image in seen],
        "num_bytes": [image.num_bytes for image in seen],
        "format": [image.format for image in seen],
        "width": [image.width for image in seen],
        "height": [image.height for image in seen],
        "phash": pa.array(hashes, mask=is_lost),
        "pixel_std": pa.array(spreads, mask=is_lost),
        "has_embedding": pa.array(has_embedding),
        "warnings": [list(image.warnings) for image in seen],
        "reason": [image.reason for image in seen],
    }
    return pa.table(columns, schema=schema.DESCRIBED)


def _measure(
    greys: UInt8[np.ndarray, "n 32 32"],
) -> tuple[UInt64[np.ndarray, " n"], Float32[np.ndarray, " n"]]:
    """Perceptual hashes and grey spreads, in blocks that bound the fp64 temporaries to some megabytes."""
    hashes, spreads = np.zeros(len(greys), np.uint64), np.zeros(len(greys), np.float32)
    for first in range(0, len(greys), MEASURE_ROWS):
        block = slice(first, first + MEASURE_ROWS)
        hashes[block], spreads[block] = phash(greys[block]), pixel_std(greys[block])
    return hashes, spreads


def _is_null(column: pa.ChunkedArray) -> Bool[np.ndarray, " n"]:
    return column.is_null().to_numpy()
