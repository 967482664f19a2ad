"""Whether a training that goes on with a trained model makes it better: measures, beside the start's."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from curation.local_files import publish_bytes
from pretrain.evaluate.probe import is_collapsed

VERDICT = "verdict.json"
STANDARD_ERRORS = 2.0  # a difference of fewer is noise
_WORDS = {"better": "better than", "no better": "no better than", "worse": "worse than"}

Measures = Mapping[str, float]  # of a look, such as knn_10, knn_20, rank_me


@dataclass(frozen=True)
class Start:
    """What was measured of a model before its training went on.

    Attributes:
        measures: of the first look.
        probe: what they were measured on; those of another probe are not compared with them.
    """

    measures: dict[str, float]
    probe: str


@dataclass(frozen=True)
class Verdict:
    """What a training has made of the model that it began with.

    Attributes:
        verdict: by k-NN accuracy with the most neighbours; worse, whatever that says, for one that has
            collapsed since.
        judged_by: the name of that measure.
        noise: by how much it may differ between two equally good models.
        step: iterations done.
        num_test: images that were classified.
        now, start: all measures.
        is_collapsed: whether nearly all images have nearly the same features by now.
    """

    verdict: Literal["better", "no better", "worse"]
    judged_by: str
    noise: float
    step: int
    num_test: int
    now: Measures
    start: Measures
    is_collapsed: bool

    def sentence(self) -> str:
        """For people."""
        name = self.judged_by
        others = (key for key in self.now if key != name and key in self.start)
        measures = "; ".join(
            f"{key} {self.now[key]:.3f} ({self.start[key]:.3f} at the start)" for key in (name, *others)
        )
        collapsed = "; its features have collapsed" if self.is_collapsed else ""
        return (
            f"verdict: {_WORDS[self.verdict]} where it began{collapsed}: {measures}; on {self.num_test:,} "
            f"images a difference of {self.noise:.3f} in {name} is noise"
        )


def judge(now: Measures, start: Measures, *, num_test: int, step: int) -> Verdict | None:
    """Compare what was measured last with what was measured at the start.

    Noise is two standard errors of a difference between two accuracies, each binomial over the test images.
    Both are on the same images, whose luck they share, so that this is rather too much than too little.

    Args:
        now, start: of the same probe.
        num_test: images that it classifies.
        step: iterations done.

    Returns:
        None where no number of neighbours is common to both.
    """
    names = [key for key in now if key.startswith("knn_") and key in start]
    if not names:
        return None
    name = max(names, key=lambda key: int(key.removeprefix("knn_")))
    variances = (share * (1 - share) / num_test for share in (now[name], start[name]))
    noise = STANDARD_ERRORS * math.sqrt(sum(variances))
    gain = now[name] - start[name]
    has_collapsed = is_collapsed(now) and not is_collapsed(start)
    verdict: Literal["better", "no better", "worse"] = "no better"
    if has_collapsed or gain < -noise:
        verdict = "worse"
    elif gain > noise:
        verdict = "better"
    return Verdict(verdict, name, noise, step, num_test, now, start, is_collapsed(now))


def shown(measures: Measures, start: Measures | None) -> str:
    """A look for people: `knn_20 0.710 (0.680 at the start)`; without these before there is a start."""
    beside = {name: f" ({value:.3f} at the start)" for name, value in (start or {}).items()}
    return "  ".join(f"{name} {value:.3f}{beside.get(name, '')}" for name, value in measures.items())


def write_verdict(run_dir: Path, verdict: Verdict) -> None:
    """Write `RUN_DIR/verdict.json`, whole or not at all.

    Raises:
        ExecutorError: when the file system refuses.
    """
    text = json.dumps({**asdict(verdict), "sentence": verdict.sentence()}, indent=1)
    publish_bytes(run_dir / VERDICT, f"{text}\n".encode(), replace=True)
