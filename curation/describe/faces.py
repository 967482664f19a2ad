"""Where faces are in a picture: the settings, the contract of a detector, boxes in the original's pixels."""

from typing import Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
from jaxtyping import Float32, UInt8
from pydantic import BaseModel, ConfigDict, Field

from curation.describe.embed import PinnedFile, parse_pinned
from curation.schema import FACES

# left, top, width, height in px, and the detector's score.
Boxes = Float32[np.ndarray, "n 5"]
# A strip is searched at this aspect's size at most: the scale that suits its short side would enlarge it.
MAX_SEARCH_ASPECT = 4


class FacesConfig(BaseModel):
    """How faces are looked for. Everything here changes what is found, and is part of a part's identity."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: PinnedFile | None = Field(
        None,
        min_length=1,
        description="FILE[@SHA256] of a YuNet in ONNX; null: the cascade of Haar features of OpenCV 4",
    )
    search_side_px: int = Field(
        480,
        ge=64,
        description="shorter side at which a picture is searched, pixels; larger ones are scaled down",
    )
    min_face_px: int = Field(24, ge=10, description="smallest face found, pixels of the searched picture")
    min_score: float | None = Field(
        None,
        description="least confidence of a face: of a YuNet 0 to 1, 0.6 where null; of the cascade the sum "
        "of its last stage, 0 where null",
    )

    @property
    def path(self) -> str | None:
        """The file of the model."""
        return self.model and parse_pinned(self.model)[0]

    @property
    def sha256(self) -> str:
        """That the file must have, in lower-case hex; empty where none is named."""
        return parse_pinned(self.model)[1] if self.model else ""


@runtime_checkable
class FaceFinder(Protocol):
    """A face detector behind one method; safe to call from many threads."""

    @property
    def need_side_px(self) -> int:
        """Short side that a decoded picture should have, px."""
        ...

    def find(self, pixels: UInt8[np.ndarray, "h w 3"]) -> Boxes:
        """The faces in a picture, RGB, upright, in its own pixels."""
        ...


def search_size(width: int, height: int, *, side_px: int) -> tuple[int, int]:
    """Width and height (px) at which a picture is searched: never larger than it is."""
    shorter, longer = min(width, height), max(width, height)
    # Integers only: a float product may fall on either side of a half.
    over, under = min((side_px, shorter), (MAX_SEARCH_ASPECT * side_px, longer), key=lambda r: r[0] / r[1])
    if over >= under:
        return width, height
    wide, high = (max(1, (2 * side * over + under) // (2 * under)) for side in (width, height))
    return wide, high


def in_original(
    boxes: Boxes, *, found_in: tuple[int, int], size: tuple[int, int]
) -> Float32[np.ndarray, "m 5"]:
    """Boxes in the pixels of the original, cut to it, from top to bottom.

    Args:
        boxes: in pixels of the picture in which they were found.
        found_in: width and height of that picture, px.
        size: of the original, upright, px.
    """
    wide = boxes.astype(np.float64)
    scale = np.array(size, np.float64) / np.array(found_in, np.float64)
    low = np.clip(wide[:, :2] * scale, 0, size)
    high = np.clip((wide[:, :2] + wide[:, 2:4]) * scale, 0, size)
    made = np.concatenate([low, high - low, wide[:, 4:]], axis=1).astype(np.float32)
    made = made[(made[:, 2] > 0) & (made[:, 3] > 0)]
    return made[np.lexsort(made.T[[4, 3, 2, 0, 1]])]


def table_of_faces(boxes: list[Float32[np.ndarray, "_ 5"]]) -> pa.Table:
    """The boxes of every row of a part as rows of schema.FACES."""
    rows = np.repeat(np.arange(len(boxes), dtype=np.int32), [len(found) for found in boxes])
    values = np.concatenate([np.zeros((0, 5), np.float32), *boxes])
    columns = [rows, *(np.ascontiguousarray(values[:, i]) for i in range(5))]
    return pa.table(dict(zip(FACES.names, columns, strict=True)), FACES)
