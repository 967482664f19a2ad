"""`lvd demo`: draw a web with known truth, curate it, make models of the result, and measure both."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from curation import storage
from curation.errors import ConfigError
from curation.shard.manifest import Manifest
from pipelines.answers.finished_run import require_run
from pipelines.answers.status import summary_lines
from pipelines.config.run_config import validate
from pipelines.demo.quality import (
    TRUSTED_ONLY,
    UNTRAINED,
    count_parameters,
    lay_out_labelled,
    measure,
    name_of_link,
    quality_failures,
    quality_table,
)
from pipelines.demo.score import Scores, Truth, failures, score, scores_table
from pipelines.demo.training import ChainSteps, demo_chain, demo_training, save_untrained
from pipelines.demo.web import FOLDERS, HOLDOUT, demo_config, draw_web, trusted_config
from pipelines.engine.output import print_error, print_json, print_lines
from pipelines.engine.progress import Progress
from pipelines.run import run
from pipelines.training.chain import run_chain
from pipelines.training.evaluate import Measured
from pretrain.train import train


@dataclass(frozen=True)
class Size:
    """How large the demo is."""

    num_images: int = 3_600  # files of the web
    first_steps: int = 120  # of the training on the trusted pictures
    chain: ChainSteps = field(default_factory=ChainSteps)  # of the trainings on the curated dataset


# What a demo makes below its folder, or once made (vit), and by what that is known for one of its own.
_MADE = ("web", "trusted", "vit-trusted", "vit-untrained.safetensors", "run", "vit", "labelled", "chain")
_MARK = ".lvd-demo"


@dataclass(frozen=True)
class DemoOutcome:
    """What the demo came to."""

    manifest: Manifest
    scores: Scores
    quality: dict[str, Measured]
    num_parameters: dict[str, int]  # by the specs of the embedders that have any

    @property
    def failures(self) -> list[str]:
        """What a demo must not get wrong, one line for each thing that it did."""
        return failures(self.scores) + quality_failures(self.quality)


def demo(out: str, *, seed: int, executor: str, as_json: bool, size: Size | None = None) -> int:
    """Run the demo below `out`.

    Returns:
        0, or 1 when exact copies, re-encoded copies or leaks were missed, or a training taught nothing.
    """
    root = Path(out).resolve()
    _make_room(root)
    started = time.monotonic()
    outcome = _go_round(root, seed=seed, executor=executor, size=size or Size())
    seconds = time.monotonic() - started
    if as_json:
        quality = {
            name: {**asdict(measured), "num_parameters": outcome.num_parameters.get(measured.embedder)}
            for name, measured in outcome.quality.items()
        }
        found = {"scores": asdict(outcome.scores), "quality": quality, "failures": outcome.failures}
        print_json({**found, "seconds": seconds})
    else:
        print_lines(summary_lines(str(root / "run"), outcome.manifest))
        quality_shown = quality_table(outcome.quality, outcome.num_parameters)
        for table in (scores_table(outcome.scores), quality_shown):
            Console(file=sys.stdout).print(table)
        try_ = f"lvd explain {root / 'run'} IMAGE, lvd report {root / 'chain' / 'distill'}"
        print_lines([f"in {seconds:.0f} s; try: {try_}"])
    for line in outcome.failures:
        print_error(line, of="lvd demo")
    return 1 if outcome.failures else 0


def _make_room(root: Path) -> None:
    """Remove what an earlier demo left there: a rerun measures a run. Nothing else is removed.

    Raises:
        ConfigError: there is something that no demo has made.
    """
    root.mkdir(parents=True, exist_ok=True)
    there = {path.name for path in root.iterdir()}
    if others := sorted(there - {*_MADE, _MARK} if _MARK in there else there):
        raise ConfigError(
            f"{root} is not empty, and not of a demo",
            got=f"{others[0]}, and {len(others) - 1} others" if others[1:] else others[0],
            expected="a folder that is empty, or that an earlier demo has made",
            remedy="Choose another folder by --out: a demo removes what an earlier one has left",
        )
    (root / _MARK).touch()
    for path in map(root.joinpath, _MADE):
        remove = storage.remove_tree if path.is_dir() else storage.remove_file
        remove(str(path))


def _go_round(root: Path, *, seed: int, executor: str, size: Size) -> DemoOutcome:
    """Draw, train on what is trusted, curate with what was learned, do the chain on that, measure."""
    web, common = root / "web", {"seed": seed, "executor": {"kind": executor, "threads": 1}}
    progress = Progress()
    with _stage(progress, f"drawing a small web below {root}"):
        truth = draw_web(web, seed=seed, num_images=size.num_images)
        labelled, test = lay_out_labelled(web, truth, root / "labelled"), web / FOLDERS[HOLDOUT]
    with _stage(progress, "curating the trusted images alone, with gist"):
        _curate(trusted_config(web, root / "trusted") | common, progress)
    first = demo_training(root / "trusted", root / "vit-trusted", seed=seed, num_steps=size.first_steps)
    untrained = save_untrained(first, root / "vit-untrained.safetensors")
    with _stage(progress, f"training a ViT on them, {size.first_steps} steps"):
        embedder = f"vit:{train(first)}"
    with _stage(progress, "curating the whole web; what resembles a trusted image, this ViT says"):
        manifest = _curate(demo_config(web, root / "run", embedder=embedder) | common, progress)
    chain = demo_chain(
        root / "run", root / "chain", seed=seed, steps=size.chain, labelled=labelled, test=test
    )
    with _stage(progress, "the chain on the curated dataset: pretrain, adapt, distil, measure, export"):
        models = run_chain(chain, say=progress.say).measured
    embedders = {
        "pixels, 32 × 32": "pixels",
        "gist": "gist",
        UNTRAINED: f"vit:{untrained}",
        TRUSTED_ONLY: embedder,
    }
    with _stage(progress, "measuring"):
        quality = measure(embedders, labelled=labelled, test=test)
        quality |= {name_of_link(name): measured for name, measured in models.items()}
        scores = _score(truth, root / "run")
    return DemoOutcome(manifest, scores, quality, count_parameters(quality.values()))


def _curate(settings: dict[str, Any], progress: Progress) -> Manifest:
    result = run(validate(settings, where="the demo's config"), progress=progress)
    assert result.manifest is not None
    return result.manifest


def _score(truth: Truth, run_dir: Path) -> Scores:
    return score(truth, require_run(str(run_dir)).lineage.table())


@contextmanager
def _stage(progress: Progress, what: str) -> Iterator[None]:
    """Say what is being done, and then how long it took."""
    started = time.monotonic()
    progress.say(f"== {what}")
    yield
    progress.say(f"== done in {time.monotonic() - started:.1f} s")
