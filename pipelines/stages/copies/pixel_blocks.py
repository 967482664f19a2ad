"""Blocks of the pictures that are compared by their pixels: few of all, so each spans many parts."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from curation import storage
from pipelines.engine.step import Receipt
from pipelines.rows.parts import Part
from pipelines.stages.copies.blocks import Block, joined_parts, make_blocks, row_digests
from pipelines.stages.copies.poor_pictures import has_miniature

PIXELS = "pixels.npy"


def write_pixel_rows(out: Path, parts: Sequence[Part], rows: Int64[np.ndarray, " m"]) -> dict[str, Any]:
    """Write down which of some ascending rows have a miniature; returns facts for `pixel_blocks`."""
    mine = rows[has_miniature(parts)[rows]]
    storage.write_vectors(out / PIXELS, mine)
    bounds = np.searchsorted(mine, [part.offset for part in parts] + [parts[-1].offset + parts[-1].num_rows])
    return {"pixel_digests": row_digests(parts, mine), "pixel_counts": np.diff(bounds).tolist()}


def pixel_blocks(
    receipt: Receipt,
    run_dir: str,
    parts: Sequence[Part],
    *,
    takes: Callable[[str], bool],
    block_rows: int,
) -> list[Block]:
    """The blocks of some pools; none where none of their rows has a miniature.

    Args:
        receipt: of the step that called `write_pixel_rows`.
        run_dir: of the run.
        parts: all of it.
        takes: whether a pool takes part.
        block_rows: rows with a miniature at which a block closes.
    """
    facts = receipt.facts
    mine = joined_parts(parts, facts["pixel_digests"], takes=takes, counts=facts["pixel_counts"])
    if not any(one.num_rows for one in mine):
        return []
    return make_blocks(mine, receipt.file(run_dir, PIXELS), block_rows=block_rows, files=("described",))
