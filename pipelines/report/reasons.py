"""Why images are not in the dataset: every stage and reason, with a few examples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from curation.schema import REASONS, STAGES
from pipelines.answers.lineage import Lineage
from pipelines.report.pictures import Picture, pictures_at
from pipelines.report.scan import Scan
from pipelines.words import MEANING

NUM_EXAMPLES = 11  # as many as a line holds


@dataclass(frozen=True)
class Reason:
    """One reason of drops, and examples of it."""

    stage: str
    reason: str
    meaning: str
    num: int
    by_pool: Mapping[str, int]
    examples: Sequence[Picture]


def gather_reasons(lineage: Lineage, scanned: Scan) -> list[Reason]:
    """Every reason that took an image, in the order of the flow."""
    pictures = pictures_at(lineage, [row for rows in scanned.reasons.values() for row in rows.tolist()])
    return [
        Reason(
            stage,
            reason,
            MEANING[reason],
            scanned.num_by_reason[stage, reason],
            scanned.pools_by_reason[stage, reason],
            [pictures[row] for row in scanned.reasons[stage, reason].tolist()],
        )
        for stage in STAGES
        for reason in REASONS[stage]
        if (stage, reason) in scanned.reasons
    ]
