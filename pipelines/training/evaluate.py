"""What an embedder's vectors are worth: k-NN accuracy on labelled images, and their effective rank."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float16, UInt8
from torch import Tensor

from curation import storage
from curation.describe.embed import EmbedConfig, Embedder, parse_embedder, unit_rows
from curation.errors import ConfigError
from curation.hidden import is_hidden
from curation.ingest.links import LinkConfig
from curation.ingest.problems import Findings, Problem
from curation.ingest.walk import WalkRules, walk_source
from curation.pictures.decode import DecodeConfig
from curation.pictures.views import View
from pipelines.models.embedders import load_embedder
from pretrain.data.augment import IMAGENET_MEAN
from pretrain.evaluate.knn import knn_accuracy, rank_me
from pretrain.evaluate.labelled import is_image_name, read_labelled, require_classes

PIXELS = "pixels"
THREADS = 2  # of a forward
PIXELS_SIDE_PX = 32


class Pixels:
    """The picture itself as its vector, scaled down: what an embedder has to be better than."""

    name = PIXELS
    dim = 3 * PIXELS_SIDE_PX**2
    view = View(PIXELS_SIDE_PX)
    batch_rows = 256

    def embed(self, pixels: UInt8[np.ndarray, "n s s 3"]) -> Float16[np.ndarray, "n d"]:
        """Unit rows of red, green and blue less their means: a mean would be most of every cosine."""
        centred = pixels.astype(np.float32) / 255 - np.array(IMAGENET_MEAN, np.float32)
        return unit_rows(centred.reshape(len(pixels), -1))


@dataclass(frozen=True)
class Measured:
    """What was measured of one embedder."""

    embedder: str
    dim: int
    knn: dict[int, float]  # accuracy for each k, 0 … 1
    rank_me: float  # of the test images' unit vectors; between 1 and dim
    num_train: int
    num_test: int
    num_unreadable: int  # in both folders
    unread: tuple[Problem, ...]  # of both folders: what could not be listed
    notes: tuple[Problem, ...]  # of both folders: what was passed over


def evaluate(
    embedder: str, *, train: str, test: str, neighbours: Sequence[int], size_px: int | None = None
) -> Measured:
    """Measure an embedder on folders with one folder of images for each class.

    Args:
        embedder: a spec of `describe.embed.embedder`, `pixels`, or a bare path, which is taken as `vit:PATH`.
        train: the neighbours.
        test: what is classified.
        neighbours: numbers of neighbours (k).
        size_px: side of the model's input; its own where None.

    Raises:
        ConfigError: an unknown embedder, one that only looks vectors up, or folders without labelled images.
        ModelError: weights that cannot be loaded.
    """
    model, findings = _load(embedder, size_px), Findings()
    listed = [(folder, _list_classes(folder, findings)) for folder in (train, test)]
    known, asked = (
        read_labelled(files, model.view, where=folder, read=_read, classes=tuple(listed[0][1]))
        for folder, files in listed
    )
    features, queries = (torch.from_numpy(_vectors(model, part.pixels)).float() for part in (known, asked))
    return Measured(
        embedder=embedder,
        dim=model.dim,
        knn=knn_accuracy(features, known.labels, queries, asked.labels, neighbours=neighbours),
        rank_me=rank_me(queries),
        num_train=len(features),
        num_test=len(queries),
        num_unreadable=known.num_unreadable + asked.num_unreadable,
        unread=tuple(findings.problems),
        notes=tuple(findings.notes),
    )


def _read(path: str) -> bytes:
    return storage.read_capped(path, DecodeConfig().max_file_bytes)


def _list_classes(folder: str, findings: Findings) -> dict[str, list[str]]:
    """The images of each class, a folder in `folder`, in order; hidden ones are none, links are followed.

    Raises:
        ConfigError: when there is no class.
    """
    names = (name for name in sorted(storage.list_names(folder)) if not is_hidden(f"{name}/"))
    classes: dict[str, list[str]] = {
        name: []
        for name in names
        if os.path.isdir(storage.join(folder, name))  # noqa: PTH112 — raises nothing
    }
    require_classes(classes, folder)
    # A class may be a link to another: each has its name.
    for file in walk_source(folder, WalkRules(LinkConfig(), skip_inner=False), findings=findings):
        name, slash, _ = file.key.partition("/")
        if slash and is_image_name(file.key):
            classes[name].append(file.path)
    return classes


def _load(spec: str, size_px: int | None) -> Embedder:
    if spec == PIXELS:
        return Pixels()
    # Compiling takes longer than the few thousand forwards that it would speed up.
    config = EmbedConfig(embedder=_known(spec), image_size_px=size_px, compile=False)
    model = load_embedder(config, threads=THREADS)
    if model is None:
        raise ConfigError(
            "Vectors that were computed elsewhere cannot be evaluated",
            got=spec,
            expected="an embedder that looks at pictures",
        )
    return model


def _known(spec: str) -> str:
    """The spec, or `vit:PATH` for what is a path and no spec."""
    try:
        parse_embedder(spec)
    except ConfigError as error:
        if Path(spec).exists():
            return f"vit:{spec}"
        expected = f"pixels, {error.expected}, or a checkpoint's path"
        raise ConfigError("Unknown embedder", got=repr(spec), expected=expected) from error
    return spec


def _vectors(model: Embedder, pixels: UInt8[Tensor, "n 3 s s"]) -> Float16[np.ndarray, "n d"]:
    """Vectors of all pictures, in batches of the one shape that the embedder has."""
    made = []
    for part in pixels.split(model.batch_rows):
        batch = np.zeros((model.batch_rows, *part.shape[2:], 3), np.uint8)
        batch[: len(part)] = part.permute(0, 2, 3, 1).numpy()
        made.append(model.embed(batch)[: len(part)])
    return np.concatenate(made)
