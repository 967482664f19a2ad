"""Leaks: images beside the evaluation images that they would leak."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipelines.answers.lineage import Lineage
from pipelines.lvd import Curated
from pipelines.report.pictures import Picture, pictures_at, sample
from pipelines.rows.parts import read

NUM_CLOSE_CALLS, NUM_BY_LOT = 6, 10


@dataclass(frozen=True)
class Leak:
    """An image, and the evaluation image that condemns it."""

    image: Picture
    holdout: Picture
    score: float
    kind: str
    by_component: bool
    why: str  # why it is shown


@dataclass(frozen=True)
class LeakSection:
    """All that the page says of leaks."""

    num: int
    num_holdout: int  # evaluation images leaked at least once
    pairs: tuple[Leak, ...]

    def pictures(self) -> list[Picture]:
        """In the order shown."""
        return [picture for pair in self.pairs for picture in (pair.image, pair.holdout)]


def gather_leaks(lineage: Lineage, made: Curated | None, *, seed: int) -> LeakSection | None:
    """Count the leaks and choose pairs: those of the lowest scores, and some drawn by lot.

    None without `made`: the lineage names the pairs, but not where both images lie.
    """
    if made is None:
        return None
    leaks = read(made.leaks.leaks)
    rows, score = leaks["row"].to_numpy(), leaks["score"].to_numpy()
    close = np.lexsort((rows, score))
    close = close[score[close] < 1][:NUM_CLOSE_CALLS]
    others = np.setdiff1d(np.arange(len(rows)), close)
    lot = sample(others, NUM_BY_LOT, seed=seed)
    why = ["among the lowest scores"] * len(close) + ["drawn by lot"] * len(lot)
    entries = leaks.take(pa.array(np.concatenate([close, lot]))).to_pylist()
    pictures = pictures_at(lineage, [row for e in entries for row in (e["row"], e["holdout"])])
    pairs = [
        Leak(pictures[e["row"]], pictures[e["holdout"]], e["score"], e["kind"], e["by_component"], reason)
        for e, reason in zip(entries, why, strict=True)
    ]
    return LeakSection(len(rows), len(np.unique(leaks["holdout"].to_numpy())), tuple(pairs))
