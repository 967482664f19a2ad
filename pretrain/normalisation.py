"""What a model's input is: its channels, and the mean and deviation that it was trained with."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter
from safetensors import SafetensorError, safe_open

from curation.errors import ModelError
from pretrain.data.augment import IMAGENET_MEAN, IMAGENET_STD
from pretrain.weight_files import find_weights

METADATA_KEY = "normalisation"


@dataclass(frozen=True, slots=True)
class Normalisation:
    """How pictures become a model's input: (value - mean) / std, channel by channel.

    Attributes:
        mean, std: of RGB levels 0..1; of bands in the unit of their samples.
        bands: numbers of the bands of TIFFs, from 1, that are the channels; None: RGB.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    bands: tuple[int, ...] | None = None


IMAGENET = Normalisation(IMAGENET_MEAN, IMAGENET_STD)


def metadata_of_normalisation(normalisation: Normalisation) -> dict[str, str]:
    """What a `.safetensors` file of ours tells of it in its metadata; nothing of what everybody takes."""
    if normalisation == IMAGENET:
        return {}
    return {METADATA_KEY: json.dumps(asdict(normalisation), sort_keys=True)}


def normalisation_of(path: str | Path) -> Normalisation:
    """The normalisation that the model at a path was trained with: its file's own, else ImageNet's.

    Args:
        path: see `pretrain.weight_files.find_weights`.

    Raises:
        ModelError: nothing is there, it cannot be read, or takes other channels than RGB and is silent.
    """
    file = find_weights(path)
    metadata = _metadata_of(file)
    if METADATA_KEY in metadata:
        return _parsed(metadata[METADATA_KEY], file)
    channels = json.loads(metadata["vit"]).get("channels", 3) if "vit" in metadata else 3
    if channels != len(IMAGENET.mean):
        raise ModelError(
            f"{file} does not tell with which mean and deviation its model was trained",
            got=f"{channels} channels and no metadata {METADATA_KEY!r}",
            expected="the file that the training wrote, or one exported from it as safetensors",
        )
    return IMAGENET


def told_normalisation(path: str | Path, *, channels: int) -> Normalisation | None:
    """As `normalisation_of`, for a model of so many channels; None where nothing tells it.

    Raises:
        ModelError: nothing is there, or it cannot be read.
    """
    if not carried_metadata(path):
        return IMAGENET if channels == len(IMAGENET.mean) else None
    return normalisation_of(path)


def carried_metadata(path: str | Path) -> dict[str, str]:
    """The part of a file's metadata that tells its normalisation, for a copy of the model; or nothing."""
    metadata = _metadata_of(find_weights(path))
    return {METADATA_KEY: metadata[METADATA_KEY]} if METADATA_KEY in metadata else {}


def _metadata_of(file: Path) -> Mapping[str, str]:
    if file.suffix != ".safetensors":
        return {}
    try:
        with safe_open(file, "pt") as opened:
            return opened.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise ModelError(f"The weights in {file} cannot be read", got=error) from error


def _parsed(text: str, file: Path) -> Normalisation:
    try:
        found = TypeAdapter(Normalisation).validate_json(text)
        if len(found.mean) != len(found.std) or min(found.std, default=0) <= 0:
            raise ValueError("it needs as many deviations above 0 as means")
    except ValueError as error:
        raise ModelError(
            f"The metadata {METADATA_KEY!r} of {file} is no normalisation",
            got=text[:1000],
            expected="an object with mean, std and bands",
        ) from error
    return found
