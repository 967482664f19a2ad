"""The copy descriptors of blocks, as the work of a join by cells reads them."""

import numpy as np
from jaxtyping import Float16, Int64

from curation.search.product import nonzero_rows
from pipelines.rows.parts import gather_vectors
from pipelines.stages.copies.blocks import Block, joined_rows
from pipelines.stages.copies.poor_pictures import is_poor


def rows_with_vectors(block: Block) -> tuple[Int64[np.ndarray, " m"], Float16[np.ndarray, "m d"]]:
    """The block's rows that take part and have a copy descriptor that knows enough, and these."""
    rows = joined_rows(block)
    vectors = gather_vectors(block.parts, "copy_vectors", rows)
    has = nonzero_rows(vectors) & ~is_poor(block.parts)[rows - block.first_row]
    return (rows, vectors) if has.all() else (rows[has], vectors[has])
