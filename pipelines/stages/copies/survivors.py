"""Which rows are left once copies and leaks are gone."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool

from pipelines.engine.step import FileRef
from pipelines.rows.parts import Part, read, roles
from pipelines.stages.copies.dedup import read_copies, usable


def survivors(parts: Sequence[Part], copies: FileRef, leaks: FileRef) -> Bool[np.ndarray, " n"]:
    """Rows of curated and uncurated pools that no stage up to decontaminate has dropped.

    A copy of a leaking image is gone too, even when it does not reach the leak's own threshold.

    Args:
        parts: with `described` and `verdicts`.
        copies, leaks: the tables of dedup and of decontaminate.
    """
    alive = usable(parts) & ~roles(parts, "holdout")
    table = read_copies(copies)
    alive[table["row"].to_numpy()[table["reason"].is_valid().to_numpy()]] = False
    alive[read(leaks)["row"].to_numpy()] = False
    return alive
