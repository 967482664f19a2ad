"""Some steps of a training on this machine, on crops drawn by lot, to learn what a step takes."""

import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from curation.errors import ConfigError, LvdError
from pipelines.engine.progress import Progress
from pipelines.plan.training.shapes import NUM_GLOBAL, Cards, changed, shape_of
from pipelines.plan.training.speed import Speed
from pretrain.config import PretrainConfig
from pretrain.cost.memory import peak
from pretrain.cost.shape import TrainingShape
from pretrain.cost.work import image_flops
from pretrain.data.augment import sides_of
from pretrain.data.images import Images
from pretrain.data.loader import CropBatch
from pretrain.data.masking import mask_batch
from pretrain.data.spool import own_spool
from pretrain.loop import load_batches
from pretrain.normalisation import Normalisation
from pretrain.parallel import Place, place
from pretrain.train import build, plan_of, source_of
from pretrain.train_step import State, train_step

SMALLEST = 2  # images: KoLeo needs neighbours
LONG_S = 4.0  # a step that takes longer tells enough
LOADED_IMAGES = 16
_TIMED_STEPS = 2
_MEMORY_SHARE = 0.6  # of what this machine has


def measured_speed(config: PretrainConfig, shape: TrainingShape) -> Speed:
    """Do steps of few images, and of twice as many as long as they are quick, and of them tell the rate.

    The steps are those of the training but for their number of images, and that they are not cut in
    micro-batches; what that adds is counted in operations.

    Raises:
        ConfigError: when not even the smallest step fits this machine.
    """
    Progress().say("measuring some steps of the training on this machine …")
    alone = changed(config, batch_images=SMALLEST, accumulate=1, start=None)
    with place(alone.parallel) as where:
        cards = Cards(
            1,
            "cuda" if where.device.type == "cuda" else "cpu",
            "bf16" if where.dtype is torch.bfloat16 else "fp32",
        )
        _require_room(alone, cards, where)
        state = build(alone, where, is_new=False)
        times = _times(state, alone, cards, where, most=shape.piece_images)
        load_s, loaded = _load_image_s(state, config, where)
    step_s, image_s = _line(times)
    factor = image_flops(shape) / image_flops(shape_of(alone, cards))
    sizes = ", ".join(str(num) for num, _ in times)
    source = (
        f"steps of {sizes} images timed here ({cards.device}, {cards.dtype}, "
        f"{torch.get_num_threads()} threads); {loaded}"
    )
    return Speed(image_s * factor, source, step_s, load_s, knows_loading=load_s is not None)


def _require_room(config: PretrainConfig, cards: Cards, where: Place) -> None:
    needed, room = peak(shape_of(config, cards)).num_bytes, _room_bytes(where)
    if needed > room:
        raise ConfigError(
            "--measure: a step of the training does not fit this machine",
            got=f"{needed / 1e9:.1f} GB for {SMALLEST} images",
            expected=f"at most {room / 1e9:.1f} GB",
            remedy="Measure where it will run, or plan with --like RUN_DIR or --rates FILE",
        )


def _times(
    state: State, config: PretrainConfig, cards: Cards, where: Place, *, most: int
) -> list[tuple[int, float]]:
    """Seconds of steps of more and more images, as far as the machine's memory and patience go."""
    room = _room_bytes(where)
    times: list[tuple[int, float]] = []
    images = SMALLEST
    while not times or (images <= most and times[-1][1] < LONG_S):
        sized = changed(config, batch_images=images)
        if peak(shape_of(sized, cards)).num_bytes > room:
            break
        times.append((images, _step_s(state, sized, where)))
        images *= 2
    return times


def _step_s(state: State, config: PretrainConfig, where: Place) -> float:
    """Seconds of a step, the quickest of some, after one that warms up."""
    channels = config.model.channels
    crops, plan = _drawn(config), plan_of(config, Normalisation((0.5,) * channels, (0.25,) * channels))
    found = []
    for _ in range(1 + _TIMED_STEPS):
        started = time.perf_counter()
        train_step(state, crops, plan, where)  # it ends with numbers on the CPU: nothing is left in a queue
        found.append(time.perf_counter() - started)
    return min(found[1:])


def _drawn(config: PretrainConfig) -> CropBatch:
    """Crops of noise, and masks as they are drawn for crops of pictures."""
    num, crops = config.batch_images, config.crops
    rng = torch.Generator().manual_seed(config.seed)
    globals_, locals_ = (
        torch.randint(
            0, 256, (each * num, config.model.channels, *sides_of(size)), generator=rng, dtype=torch.uint8
        )
        for each, size in ((NUM_GLOBAL, crops.global_size_px), (crops.num_local, crops.local_size_px))
    )
    masks = mask_batch(NUM_GLOBAL * num, config.crop_grid, config.masking, np.random.default_rng(config.seed))
    return CropBatch(0, globals_, locals_, torch.from_numpy(masks), torch.arange(num), 0)


def _line(times: Sequence[tuple[int, float]]) -> tuple[float, float]:
    """Seconds of a step, and besides of each image, through the two largest sizes."""
    (images, longest) = times[-1]
    if len(times) == 1:
        return 0.0, longest / images
    fewer, shorter = times[-2]
    image_s = (longest - shorter) / (images - fewer)
    if image_s * images > longest or image_s <= 0:  # noise: there is no time before the first image
        return 0.0, longest / images
    return longest - image_s * images, image_s


def _load_image_s(state: State, config: PretrainConfig, where: Place) -> tuple[float | None, str]:
    """Seconds that the loaders of a rank take for an image, where its data is there, and a word on it."""
    if config.data.path is None:
        return None, "loading was not measured: data.path is not set"
    few = changed(config, batch_images=LOADED_IMAGES, accumulate=1, data__workers=0, start=None)
    spool = own_spool(config.data.spool_dir, max_bytes=config.data.spool_bytes)
    try:
        with tempfile.TemporaryDirectory() as folder:
            images = Images(config.data.path, cache=Path(folder), spool=spool)
            batches = load_batches(source_of(few, images), state, total=state.step + 2, where=where)
            next(batches)  # what is loaded once
            started = time.perf_counter()
            next(batches)
            took_s = (time.perf_counter() - started) / LOADED_IMAGES
    except LvdError as error:
        return None, f"loading was not measured: {error}"
    at_once = max(1, min(config.data.workers, os.cpu_count() or 1))
    return took_s / at_once, f"loading of {LOADED_IMAGES} images, by {at_once} workers at once"


def _room_bytes(where: Place) -> float:
    """What steps may take here."""
    if where.device.type == "cuda":
        return _MEMORY_SHARE * torch.cuda.mem_get_info(where.device)[0]
    return _MEMORY_SHARE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
