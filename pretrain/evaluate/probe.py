"""A look at the teacher while it is trained: k-NN accuracy and effective rank on labelled images."""

import torch
from jaxtyping import Float, UInt8
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from pretrain.data.augment import normalise
from pretrain.evaluate.knn import knn_accuracy, rank_me
from pretrain.evaluate.labelled import Labelled, list_labelled, read_file, read_labelled
from pretrain.evaluate.view import evaluation_view
from pretrain.model.network import Backbone
from pretrain.normalisation import IMAGENET, Normalisation
from pretrain.parallel import Place

_COLLAPSED_RANK = 2.0


class ProbeConfig(BaseModel):
    """Labelled images on which the teacher is measured while it is trained."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    train: str = Field(description="a folder with one folder for each class: the neighbours")
    test: str = Field(description="a folder with the same classes: what is classified")
    every: int = Field(
        1_000, ge=1, description="iterations between two looks; one more is taken at both ends"
    )
    neighbours: tuple[int, ...] = Field((10, 20), min_length=1, description="numbers of neighbours (k)")
    size_px: int | None = Field(None, ge=1, description="side of the images; null: the global crop's")
    batch_images: int = Field(128, ge=1, description="images in a forward")


class Probe:
    """The labelled images, read once, and what is measured on them."""

    def __init__(self, config: ProbeConfig, *, side_px: int, normalisation: Normalisation = IMAGENET) -> None:
        self.every = config.every
        self._normalisation = normalisation
        self._config = config
        view = evaluation_view(config.size_px or side_px)
        listed = [(folder, list_labelled(folder)) for folder in (config.train, config.test)]
        classes = tuple(listed[0][1])
        self._train, self._test = (
            read_labelled(files, view, where=folder, read=read_file, classes=classes)
            for folder, files in listed
        )

    def measure(self, backbone: Backbone, where: Place) -> dict[str, float]:
        """k-NN accuracy for each k, and RankMe of the test images' unit vectors. Every rank must call.

        Args:
            backbone: in eval mode.
            where: this rank's place.
        """
        train, test = (self._features(backbone, part, where) for part in (self._train, self._test))
        accuracy = knn_accuracy(
            train, self._train.labels, test, self._test.labels, neighbours=self._config.neighbours
        )
        rank = rank_me(nn.functional.normalize(test, dim=1))
        return {**{f"knn_{k}": value for k, value in accuracy.items()}, "rank_me": rank}

    def _features(self, backbone: Backbone, images: Labelled, where: Place) -> Float[Tensor, "n dim"]:
        """Class tokens of all images; the ranks share the work, and forward equally often."""
        group = where.group
        each = -(-len(images.pixels) // group.size)
        rows = torch.arange(group.rank * each, (group.rank + 1) * each) % len(images.pixels)
        own = [
            class_tokens(backbone, images.pixels[part], where, self._normalisation)
            for part in rows.split(self._config.batch_images)
        ]
        return group.gather(torch.cat(own))[: len(images.pixels)].cpu()


def is_collapsed(measures: dict[str, float]) -> bool:
    """Whether nearly all images have nearly the same features."""
    return measures["rank_me"] < _COLLAPSED_RANK


@torch.no_grad()
def class_tokens(
    backbone: Backbone,
    pixels: UInt8[Tensor, "n 3 s s"],
    where: Place,
    normalisation: Normalisation = IMAGENET,
) -> Float[Tensor, "n dim"]:
    """Class tokens after the final norm, fp32."""
    images = normalise(pixels.to(where.device), normalisation.mean, normalisation.std).to(where.dtype)
    [features] = backbone([images])
    tokens: Tensor = features.cls.float()
    return tokens
