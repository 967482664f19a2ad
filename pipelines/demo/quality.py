"""What the demo's embedders are worth: k-NN from the trusted pictures to the evaluation set."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from rich.table import Table

from pipelines.demo.score import Truth
from pipelines.demo.web import CURATED, FOLDERS, HOLDOUT
from pipelines.training.evaluate import Measured, evaluate

NEIGHBOURS = 10  # there are about nineteen trusted pictures of a concept
UNTRAINED, TRUSTED_ONLY, PRETRAINED = "ViT, untrained", "ViT, trusted images alone", "ViT, curated dataset"


def lay_out_labelled(web: Path, truth: Truth, folder: Path) -> Path:
    """Copy the trusted pictures, a folder a concept; without the leaks, which would be their own answers."""
    for row in truth.to_pylist():
        if row["pool"] == CURATED and row["kind"] == "original":
            target = folder / row["key"]
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(web / FOLDERS[CURATED] / row["key"], target)
    return folder


def measure(embedders: Mapping[str, str], *, labelled: Path, web: Path) -> dict[str, Measured]:
    """Measure embedders, given by the name that the demo has for each."""
    test = str(web / FOLDERS[HOLDOUT])
    return {
        name: evaluate(spec, train=str(labelled), test=test, neighbours=(NEIGHBOURS,))
        for name, spec in embedders.items()
    }


def quality_failures(found: Mapping[str, Measured]) -> list[str]:
    """A line when the pretrained model is no better than it was before it had seen a picture."""
    before, after = (found[name].knn[NEIGHBOURS] for name in (UNTRAINED, PRETRAINED))
    if after > before:
        return []
    return [
        f"k-NN of the pretrained ViT: {after:.1%}, and more than the untrained one's {before:.1%} is expected"
    ]


def quality_table(found: Mapping[str, Measured]) -> Table:
    """The measures as a table for a terminal."""
    any_one = next(iter(found.values()))
    title = f"Concepts of {any_one.num_test} evaluation images, told by their {NEIGHBOURS} nearest of "
    table = Table(title=f"{title}{any_one.num_train} trusted ones")
    table.add_column("embedder")
    for column in ("dim", "k-NN accuracy", "RankMe"):
        table.add_column(column, justify="right")
    for name, one in found.items():
        table.add_row(name, f"{one.dim:,}", f"{one.knn[NEIGHBOURS]:.1%}", f"{one.rank_me:.1f}")
    return table
