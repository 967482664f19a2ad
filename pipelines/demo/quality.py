"""What the demo's embedders are worth: k-NN from the trusted pictures to the evaluation set."""

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from rich.table import Table

from pipelines.demo.score import Truth
from pipelines.demo.web import CURATED, FOLDERS
from pipelines.training.evaluate import Measured, evaluate
from pretrain.weight_files import find_weights
from pretrain.weights import load_backbone

NEIGHBOURS = 10  # there are about nineteen trusted pictures of a concept
UNTRAINED, TRUSTED_ONLY, PRETRAINED = "ViT, untrained", "ViT, trusted images alone", "ViT, curated dataset"
ADAPTED, STUDENT = "the same, adapted", "distilled: "  # and the student's name


def lay_out_labelled(web: Path, truth: Truth, folder: Path) -> Path:
    """Copy the trusted pictures, a folder a concept; without the leaks, which would be their own answers."""
    for row in truth.to_pylist():
        if row["pool"] == CURATED and row["kind"] == "original":
            target = folder / row["key"]
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(web / FOLDERS[CURATED] / row["key"], target)
    return folder


def measure(embedders: Mapping[str, str], *, labelled: Path, test: Path) -> dict[str, Measured]:
    """Measure embedders, given by the name that the demo has for each."""
    return {
        name: evaluate(spec, train=str(labelled), test=str(test), neighbours=(NEIGHBOURS,))
        for name, spec in embedders.items()
    }


def name_of_link(model: str) -> str:
    """The demo's name for a model of its chain."""
    match model:
        case "pretrain":
            return PRETRAINED
        case "adapt":
            return ADAPTED
        case student:
            return STUDENT + student


def count_parameters(found: Iterable[Measured]) -> dict[str, int]:
    """Parameters of the backbones among embedders, by their specs; others have none."""
    kinds = (one.embedder.partition(":") for one in found)
    return {
        f"{kind}:{path}": sum(p.numel() for p in load_backbone(find_weights(path)).parameters())
        for kind, _, path in kinds
        if kind == "vit"
    }


def quality_failures(found: Mapping[str, Measured]) -> list[str]:
    """A line for each model that is no better than one that has not seen a picture.

    Students are not asked: after so few steps one was 4 points better, on 182 images no more than chance.
    """
    before = found[UNTRAINED].knn[NEIGHBOURS]
    return [
        f"k-NN of {name!r}: {after:.1%}, and more than the untrained one's {before:.1%} is expected"
        for name in (PRETRAINED, ADAPTED)
        if (after := found[name].knn[NEIGHBOURS]) <= before
    ]


def quality_table(found: Mapping[str, Measured], num_parameters: Mapping[str, int]) -> Table:
    """The measures as a table for a terminal."""
    any_one = next(iter(found.values()))
    title = f"Concepts of {any_one.num_test} evaluation images, told by their {NEIGHBOURS} nearest of "
    table = Table(title=f"{title}{any_one.num_train} trusted ones")
    table.add_column("embedder")
    for column in ("parameters", "dim", "k-NN accuracy", "RankMe"):
        table.add_column(column, justify="right")
    for name, one in found.items():
        size = num_parameters.get(one.embedder)
        shown = "none" if size is None else f"{size:,}"
        table.add_row(name, shown, f"{one.dim:,}", f"{one.knn[NEIGHBOURS]:.1%}", f"{one.rank_me:.1f}")
    return table
