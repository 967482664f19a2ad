"""Mean and standard deviation of the data's own channels, measured once and kept with the training."""

import json
import math
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float64, Int64

from curation.disk_errors import naming
from curation.errors import ConfigError, IntegrityError, LvdError
from pretrain.data.augment import CropConfig
from pretrain.data.image_set import ImageSet
from pretrain.data.order import Order
from pretrain.data.pictures import Picture, picture_of
from pretrain.normalisation import IMAGENET, Normalisation, normalisation_of
from pretrain.parallel import Place

NUM_MEASURED = 1_000  # images
GRID_PX = 1 << 16  # pixels of an image that are looked at, about
FILE = "normalisation.json"


def settle_normalisation(
    crops: CropConfig,
    images: ImageSet,
    order: Order,
    *,
    run_dir: Path,
    where: Place,
    start: str | None,
    say: Callable[[str], None],
) -> Normalisation:
    """The normalisation of a training: given, ImageNet's, that of what it begins with, or measured.

    What is measured, or taken over, is written into the run directory, and read there by a training that goes
    on.

    Args:
        crops: what is asked for.
        images, order: of the dataset; the first images of its order are measured.
        run_dir: of the training.
        where: this rank's place; every rank must call, and the first one measures.
        start: the checkpoint that the training begins with; what was measured for it is kept.
        say: is told what is measured.

    Raises:
        ConfigError: a channel is the same in all images, or `start` was trained on other bands.
        IntegrityError: no image can be decoded.
        ModelError: `start` does not tell its own.
    """
    if isinstance(crops.mean, tuple) and isinstance(crops.std, tuple):
        return Normalisation(crops.mean, crops.std, crops.bands)
    if crops.mean is None and crops.bands is None:
        return IMAGENET
    num_channels = 3 if crops.bands is None else len(crops.bands)
    failure: LvdError | None = None
    numbers = np.zeros(2 * num_channels)
    if where.group.rank == 0:
        try:
            numbers = _kept_or_found(crops, images, order, file=run_dir / FILE, start=start, say=say)
        except LvdError as error:
            failure, numbers = error, np.full(2 * num_channels, np.nan)
    numbers = where.group.sum(torch.from_numpy(numbers).to(where.device)).cpu().numpy()
    if np.isnan(numbers).any():
        # The first rank says what is wrong.
        raise failure or ConfigError("Mean and deviation of the dataset cannot be measured")
    mean, std = np.split(numbers, 2)
    return Normalisation(tuple(mean.tolist()), tuple(std.tolist()), crops.bands)


def moments_of(pictures: Iterable[Picture]) -> tuple[Float64[np.ndarray, "c"], Float64[np.ndarray, "c"]]:
    """Mean and standard deviation of every channel, fp64, of levels 0..1 or in the unit of the bands.

    Every image counts as much as any other, whatever its size, as it does in the training; of a large one an
    even grid of pixels is looked at.

    Args:
        pictures: (h, w, c) each.

    Raises:
        ValueError: there is none.
    """
    means, variances = [], []
    for picture in pictures:
        step = max(1, math.isqrt(picture.shape[0] * picture.shape[1] // GRID_PX))
        some = picture[::step, ::step].astype(np.float64) / (255 if picture.dtype == np.uint8 else 1)
        means.append(some.mean(axis=(0, 1)))
        variances.append(some.var(axis=(0, 1)))
    if not means:
        raise ValueError("there is no picture to measure")
    spread = np.mean(variances, axis=0) + np.var(means, axis=0)  # within the images, and between them
    return np.mean(means, axis=0), np.sqrt(spread)


def _kept_or_found(
    crops: CropConfig,
    images: ImageSet,
    order: Order,
    *,
    file: Path,
    start: str | None,
    say: Callable[[str], None],
) -> Float64[np.ndarray, "two_c"]:
    bands = crops.bands and list(crops.bands)
    rows = order.rows(np.arange(min(NUM_MEASURED, len(images)), dtype=np.int64))
    what = {"dataset": images.digest, "bands": bands, "first_row": int(rows[0]), "start": start}
    if file.is_file():
        kept = json.loads(file.read_text())
        if {name: kept.get(name) for name in what} == what:
            return np.array([*kept["mean"], *kept["std"]])
    mean, std = _of_start(start, crops) if start else _measured(crops, images, rows, say)
    _write(file, {**what, "num_images": len(rows), "mean": mean.tolist(), "std": std.tolist()})
    return np.concatenate([mean, std])


def _of_start(start: str, crops: CropConfig) -> tuple[Float64[np.ndarray, "c"], Float64[np.ndarray, "c"]]:
    found = normalisation_of(start)
    if found.bands != crops.bands:
        raise ConfigError(
            f"{start} was trained on other bands", got=f"crops.bands {crops.bands}", expected=found.bands
        )
    return np.array(found.mean), np.array(found.std)


def _measured(
    crops: CropConfig, images: ImageSet, rows: Int64[np.ndarray, "m"], say: Callable[[str], None]
) -> tuple[Float64[np.ndarray, "c"], Float64[np.ndarray, "c"]]:
    say(f"measuring mean and deviation of {len(rows):,} images")
    read = (picture_of(images.read(int(row)), crops) for row in rows)
    try:
        mean, std = moments_of(picture for picture in read if picture is not None)
    except ValueError as error:
        raise IntegrityError(
            "No image can be measured",
            got=f"{len(rows)} files of {images.name} that give no picture",
            expected="TIFFs with the bands of crops.bands" if crops.bands else "pictures",
            remedy="Check crops.bands, and the shards: lvd verify RUN_DIR",
        ) from error
    if not (std > 0).all():
        raise ConfigError(
            "A channel is the same everywhere in the images that were measured",
            got=f"standard deviations {std.tolist()}",
            expected="channels that differ",
            remedy="Leave it out of crops.bands, or give crops.mean and crops.std",
        )
    return mean, std


def _write(file: Path, content: dict[str, object]) -> None:
    temp = file.with_name(f".{file.name}.tmp")
    with naming(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        with temp.open("w") as stream:
            stream.write(json.dumps(content, indent=1))
            stream.flush()
            os.fsync(stream.fileno())
        temp.rename(file)
