"""A part of images in, their measurements, hashes and vectors out. The one place that decodes pictures."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float16, Float32, UInt8, UInt64
from pydantic import BaseModel, ConfigDict, Field, model_validator

from curation import schema
from curation.describe.embed import ALLOWED, EmbedConfig, Embedder, EmbedderName
from curation.describe.faces import FaceFinder, FacesConfig, table_of_faces
from curation.describe.filters import pixel_std
from curation.describe.heads_config import HeadsConfig, check_heads
from curation.describe.look import Look, Seen, in_order
from curation.describe.phash import phash
from curation.pictures.decode import DecodeConfig

MIN_AHEAD_ROWS = 64
MEASURE_ROWS = 1024


class DescribeConfig(BaseModel):
    """What is measured of every image; `decode_threads` alone never changes a result."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    embed: EmbedConfig = Field(default_factory=EmbedConfig, description="the semantic embedding")
    descriptor: EmbedderName | None = Field(
        None, description=f"copy descriptor beside the perceptual hash: {ALLOWED}; none where null"
    )
    descriptor_size_px: int | None = Field(
        None, description="side of the copy descriptor's input; its model's own where null", ge=8
    )
    heads: HeadsConfig = Field(
        default_factory=HeadsConfig,
        description="scores of what an image shows, from its embedding",
    )
    faces: FacesConfig | None = Field(
        None, description="look for faces, which `shard.blur_faces` blurs; null: no look"
    )
    decode: DecodeConfig = Field(default_factory=DecodeConfig, description="hard caps and allowed formats")
    decode_threads: int = Field(2, description="threads that read and decode ahead of the model", ge=1)

    @model_validator(mode="after")
    def _heads_have_vectors(self) -> "DescribeConfig":
        check_heads(self.heads, self.embed.embedder)
        return self

    @property
    def heads_embed(self) -> EmbedConfig | None:
        """How the vectors are made that heads look at, where they are not the embedding's."""
        spec = self.heads.embedder
        if not self.heads.on or spec is None or spec == self.embed.embedder:
            return None
        return self.embed.model_copy(update={"embedder": spec, "image_size_px": None})

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
    head_vectors: Float16[np.ndarray, "n f"] | None = None  # likewise
    faces: pa.Table | None = None  # schema.FACES; None where none were looked for
    read_errors: Mapping[int, str] = field(default_factory=dict)  # row → what the source said


def describe(
    num_rows: int,
    read: Callable[[int], bytes],
    *,
    embedder: Embedder | None,
    descriptor: Embedder | None,
    config: DescribeConfig,
    for_heads: Embedder | None = None,
    faces: FaceFinder | None = None,
    known: Mapping[int, str] | None = None,
    guard: Callable[[int], AbstractContextManager[None]] | None = None,
    name: Callable[[int], str] = "row {}".format,
    tell: Callable[[int], None] | None = None,
) -> Described:
    """Read, hash, decode and embed every image of a part, each once.

    The images that share a forward are rows [b·B, (b + 1)·B), whatever the threads do; a row without a
    picture stays in it as zeros. So the result is the same, to the bit, for any `decode_threads`.

    Args:
        num_rows: images in the part.
        read: the bytes of a row; called from several threads; an OSError is that row's reason `unreadable`,
            of the kind ESTALE `source_changed`.
        embedder, descriptor: models, or None; the same object for both is run once.
        config: what to measure.
        for_heads: the model whose vectors heads look at, where it is none of these two.
        faces: a detector, or None.
        known: row → reason, for rows that are not to be read.
        guard: entered, with the row, around the decoding of each row, in the thread that does it.
        name: of a row, for people.
        tell: called after every row with the number of rows that are done.

    Returns:
        The described part.
    """
    models = {id(model): model for model in (embedder, descriptor, for_heads) if model is not None}
    lanes = [_Lane(model, num_rows) for model in models.values()]
    views = tuple(lane.model.view for lane in lanes)
    look = Look(read, views, config.decode, known or {}, guard, faces, name)
    ahead = max([MIN_AHEAD_ROWS, *(lane.model.batch_rows for lane in lanes)])
    greys = np.zeros((num_rows, 32, 32), np.uint8)
    seen: list[Seen] = []
    for row, image in enumerate(in_order(num_rows, look, threads=config.decode_threads, ahead=ahead)):
        if image.grey is not None:
            greys[row] = image.grey
        for lane, view in zip(lanes, image.views or [None] * len(lanes), strict=True):
            lane.put(row, view)
        seen.append(replace(image, grey=None, views=()))
        if tell is not None:
            tell(len(seen))
    vectors = {id(lane.model): lane.vectors for lane in lanes}
    embeddings = vectors.get(id(embedder))
    return Described(
        _table(seen, greys, embeddings),
        embeddings,
        vectors.get(id(descriptor)),
        vectors.get(id(for_heads)),
        None if faces is None else _faces(seen),
        {row: image.read_error for row, image in enumerate(seen) if image.read_error is not None},
    )


def with_vectors(
    described: Described,
    vectors: Float16[np.ndarray, "n d"],
    has: Bool[np.ndarray, " n"],
    *,
    into: Literal["embeddings", "descriptors", "head_vectors"] = "embeddings",
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
    match into:
        case "descriptors":
            return replace(described, descriptors=vectors)
        case "head_vectors":
            return replace(described, head_vectors=vectors)
    column = schema.DESCRIBED.get_field_index("has_embedding")
    table = described.table.set_column(column, schema.DESCRIBED.field(column), pa.array(has))
    return replace(described, table=table, embeddings=vectors)


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
    seen: list[Seen],
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
        "certain_bits": [image.certain_bits for image in seen],
        "miniature": [image.miniature for image in seen],
        "pixel_std": pa.array(spreads, mask=is_lost),
        "uniform_share": [image.ground and image.ground[0] for image in seen],
        "stroke_share": [image.ground and image.ground[1] for image in seen],
        "has_embedding": pa.array(has_embedding),
        "warnings": [list(image.warnings) for image in seen],
        "reason": [image.reason for image in seen],
    }
    return pa.table(columns, schema=schema.DESCRIBED)


def _faces(seen: list[Seen]) -> pa.Table:
    none = np.zeros((0, 5), np.float32)
    return table_of_faces([none if image.faces is None else image.faces for image in seen])


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
    is_null: np.ndarray = column.is_null().to_numpy()
    return is_null
