"""Which rows are left once copies and leaks are gone."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool

from pipelines.engine.step import Item
from pipelines.rows.parts import Part, read, roles
from pipelines.stages.copies.decontaminate import Leaks
from pipelines.stages.copies.dedup import Copies, read_copies, usable


def survivors(parts: Sequence[Part], copies: Copies, leaks: Leaks) -> Bool[np.ndarray, " n"]:
    """Rows of curated and uncurated pools that no stage up to decontaminate has dropped.

    A copy of a leaking image is gone too, even when it does not reach the leak's own threshold.
    """
    alive = usable(parts) & ~roles(parts, "holdout")
    table = read_copies(copies)
    alive[table["row"].to_numpy()[table["reason"].is_valid().to_numpy()]] = False
    alive[read(leaks.leaks)["row"].to_numpy()] = False
    return alive


def survivor_inputs(parts: Sequence[Part], copies: Copies, leaks: Leaks) -> tuple[str, ...]:
    """Digests of all that `survivors` reads, and of the embeddings."""
    files = [part.digest("described", "verdicts", "embeddings") for part in parts]
    return (*files, copies.copies.sha256, leaks.leaks.sha256)


def survivor_item(parts: Sequence[Part], copies: Copies, leaks: Leaks) -> Item:
    """The item of a global step that works on survivors."""
    payload = {"parts": tuple(parts), "copies": copies, "leaks": leaks}
    return Item(survivor_inputs(parts, copies, leaks), payload)
