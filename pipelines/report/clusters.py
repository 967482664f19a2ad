"""Clusters: how large they are, how much of each is kept, and a few to look at."""

from dataclasses import dataclass

import numpy as np

from pipelines.answers.lineage import Lineage
from pipelines.report.charts import Chart, draw_bars, rank_bars
from pipelines.report.pictures import Picture, pictures_at
from pipelines.report.scan import Scan, find_members

NUM_SHOWN = 3  # of the largest, the middling and the smallest each
NUM_EXAMPLES = 11  # as many as a line holds


@dataclass(frozen=True)
class ShownCluster:
    """One cluster to look at."""

    number: int
    why: str  # why it is shown
    size: int
    num_kept: int
    examples: tuple[Picture, ...]


@dataclass(frozen=True)
class ClusterSection:
    """All that the page says of clusters."""

    num: int
    num_images: int
    largest: int
    median: int
    smallest: int
    num_untouched: int  # clusters of which nothing is kept
    chart: Chart
    shown: tuple[ShownCluster, ...]

    def pictures(self) -> list[Picture]:
        """In the order shown."""
        return [picture for cluster in self.shown for picture in cluster.examples]


def gather_clusters(lineage: Lineage, scanned: Scan, *, seed: int) -> ClusterSection | None:
    """Measure the clusters and draw examples by lot; None where nothing was clustered."""
    size, kept = scanned.cluster_size, scanned.cluster_kept
    numbers = np.flatnonzero(size)
    if not len(numbers):
        return None
    ranked = numbers[np.lexsort((numbers, -size[numbers]))]
    why: dict[int, str] = {}
    middle = max((len(ranked) - NUM_SHOWN) // 2, 0)
    for text, some in (
        ("one of the largest", ranked[:NUM_SHOWN]),
        ("of median size", ranked[middle : middle + NUM_SHOWN]),
        ("one of the smallest", ranked[-NUM_SHOWN:]),
    ):
        for number in some.tolist():
            why.setdefault(number, text)
    rows = find_members(lineage, "cluster", wanted=why, num_samples=NUM_EXAMPLES, seed=seed)
    pictures = pictures_at(lineage, [row for some in rows.values() for row in some.tolist()])
    shown = [
        ShownCluster(
            number,
            text,
            int(size[number]),
            int(kept[number]),
            tuple(pictures[row] for row in rows[number].tolist()),
        )
        for number, text in why.items()
    ]
    bars = rank_bars(size[ranked], kept[ranked], ranked, noun="cluster")
    return ClusterSection(
        len(numbers),
        int(size.sum()),
        int(size.max()),
        int(np.median(size[numbers])),
        int(size[numbers].min()),
        int(np.count_nonzero(kept[numbers] == 0)),
        draw_bars(bars, width=1140.0, has_labels=False),
        tuple(shown),
    )
