"""Pools of which a stage leaves nothing, or nearly nothing, for one reason: most likely a mistake.

A threshold in other units, vectors whose keys are named otherwise, a table without bytes, a wrong folder:
each is a sound run by itself, so nothing fails. What a run says at its end names them.
"""

from collections.abc import Container, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from curation.schema import KEPT_REASONS
from curation.shard.manifest import Level

# Of a pool that is not tiny, this share or less is nearly nothing.
NEARLY_NOTHING = 0.05
MIN_IMAGES = 20
# One reason is the reason where it takes this share of what a stage drops.
MAIN_SHARE = 0.9
# Nearly all of a pool may well go for these: few are chosen, as the config asks.
CHOSEN = frozenset({"not_retrieved", "over_cap", "equal_id"})
# All of a pool goes for these, always.
INTENDED = frozenset({"holdout", "query_only"})

Examples = Mapping[str, Mapping[str, str]]  # pool → `stage.reason` of a verdict → the key of its first image


@dataclass(frozen=True)
class Loss:
    """A stage that took a pool away."""

    pool: str
    stage: str
    reason: str | None  # None where the sources gave no image
    num_in: int
    num_out: int
    num_dropped: int  # for this reason
    example: str | None  # the key of an image that went
    survivor: str | None  # and of one that is left


def find_losses(funnel: Sequence[Level], examples: Examples) -> list[Loss]:
    """The stages that took all of a pool, or nearly all, for one reason.

    Args:
        funnel: of the manifest: its levels, stage by stage for each pool.
        examples: of every verdict that occurs in a pool.

    Returns:
        The losses in the order of the funnel; a pool without any image has one at `ingest`.
    """
    losses = []
    for pool in dict.fromkeys(level["pool"] for level in funnel):
        levels = [level for level in funnel if level["pool"] == pool]
        of_pool = examples.get(pool, {})
        if not levels[0]["in"]:
            losses.append(Loss(pool, "ingest", None, 0, 0, 0, None, None))
        for number, level in enumerate(levels):
            reason, num = max(level["dropped"].items(), key=lambda entry: entry[1], default=("", 0))
            if num and reason not in INTENDED and _takes_the_pool(level, reason, num):
                later = {after["stage"] for after in levels[number + 1 :]}
                left = (key for verdict, key in of_pool.items() if _is_later(verdict, later))
                example = of_pool.get(f"{level['stage']}.{reason}")
                sizes = (level["in"], level["out"], num)
                losses.append(Loss(pool, level["stage"], reason, *sizes, example, next(left, None)))
    return losses


def as_data(losses: Sequence[Loss]) -> list[Mapping[str, Any]]:
    """As `manifest.json` lists them."""
    return [asdict(loss) for loss in losses]


def _takes_the_pool(level: Level, reason: str, num: int) -> bool:
    if num < MAIN_SHARE * sum(level["dropped"].values()):
        return False
    if not level["out"]:
        return True
    is_large = level["in"] >= MIN_IMAGES
    return is_large and reason not in CHOSEN and level["out"] <= NEARLY_NOTHING * level["in"]


def _is_later(verdict: str, stages: Container[str]) -> bool:
    """Whether an image with this verdict was still there when `stages` began."""
    stage, _, reason = verdict.partition(".")
    return stage in stages or reason in KEPT_REASONS
