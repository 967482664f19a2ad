"""`MultiCrop` against the official composition of torchvision's classes, on tensors and on Pillow."""

import json
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import v2

from pretrain.data.augment import CropConfig, CropKind, MultiCrop, blur_probability

NUM_ROUNDS = 15
NUM_IMAGES = 4
SETTINGS = {
    "256 px to 2 x 224 + 8 x 98": (256, CropConfig()),
    "224 px to 2 x 64 + 6 x 32": (224, CropConfig(global_size_px=64, local_size_px=32, num_local=6)),
}


def draw_images(num: int, side_px: int, *, seed: int) -> list[np.ndarray]:
    """Smooth pictures with grain: every operation costs the same for any picture."""
    rng = np.random.default_rng(seed)
    images = []
    for coarse in rng.integers(0, 256, (num, 9, 9, 3), np.uint8):
        smooth = np.asarray(Image.fromarray(coarse).resize((side_px, side_px)), np.float64)
        images.append((smooth + rng.normal(0, 8, smooth.shape)).clip(0, 255).astype(np.uint8))
    return images


def official_views(config: CropConfig) -> list[v2.Transform]:
    """The official pipeline of each crop, but for ToTensor and the normalisation."""
    views: list[v2.Transform] = []
    kinds: tuple[CropKind, ...] = ("global_1", "global_2", "local")
    for kind in (*kinds, *kinds[2:] * (config.num_local - 1)):
        is_local = kind == "local"
        jitter = v2.ColorJitter(config.brightness, config.contrast, config.saturation, config.hue)
        window = v2.GaussianBlur(config.blur_kernel_px, config.blur_sigma_px)
        steps = [
            v2.RandomResizedCrop(
                config.local_size_px if is_local else config.global_size_px,
                scale=config.local_scale if is_local else config.global_scale,
                interpolation=v2.InterpolationMode.BICUBIC,
            ),
            v2.RandomHorizontalFlip(config.flip_probability),
            v2.RandomApply([jitter], config.jitter_probability),
            v2.RandomGrayscale(config.grey_probability),
            v2.RandomApply([window], blur_probability(kind, config.blur)),
        ]
        if kind == "global_2":
            steps.append(v2.RandomSolarize(config.solarize_threshold, config.solarize_probability))
        views.append(v2.Compose(steps))
    return views


def time_in_turns(ways: dict[str, Callable[[int], object]]) -> dict[str, float]:
    """Images a second of each way, the median of rounds in which every way runs once."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for round_ in range(-1, NUM_ROUNDS):  # the first is to warm up
        for name, way in ways.items():
            start = time.perf_counter()
            for i in range(NUM_IMAGES):
                way(NUM_IMAGES * round_ + i)
            if round_ >= 0:
                times[name].append(time.perf_counter() - start)
    return {name: NUM_IMAGES / statistics.median(seconds) for name, seconds in times.items()}


def measure(side_px: int, config: CropConfig) -> dict[str, float]:
    """Images a second of ours and of the official composition, from pictures in memory."""
    pixels = draw_images(NUM_IMAGES, side_px, seed=0)
    tensors = [torch.from_numpy(image).permute(2, 0, 1) for image in pixels]
    pictures = [Image.fromarray(image) for image in pixels]
    crops, views = MultiCrop(config), official_views(config)
    torch.manual_seed(0)
    return time_in_turns(
        {
            "ours": lambda i: crops(tensors[i % NUM_IMAGES], seed=NUM_IMAGES + i),
            "tensors": lambda i: [view(tensors[i % NUM_IMAGES]) for view in views],
            "pillow": lambda i: [
                v2.functional.pil_to_tensor(view(pictures[i % NUM_IMAGES])) for view in views
            ],
        }
    )


def main() -> None:
    """Print one JSON line; the reference is the official composition on tensors."""
    torch.set_num_threads(1)
    rates = {size: measure(*setting) for size, setting in SETTINGS.items()}
    (size, main_rates), (_, small_rates) = rates.items()
    print(
        json.dumps(
            {
                "what": "crops of a decoded image, one core",
                "size": size,
                "rate": round(main_rates["ours"]),
                "unit": "images/s",
                "reference": "torchvision.transforms.v2 on uint8 tensors",
                "reference_rate": round(main_rates["tensors"]),
                "ratio": round(main_rates["ours"] / main_rates["tensors"], 2),
                "pillow_rate": round(main_rates["pillow"]),
                "ratio_to_pillow": round(main_rates["ours"] / main_rates["pillow"], 2),
                "small_crops": {name: round(rate) for name, rate in small_rates.items()},
            }
        )
    )


if __name__ == "__main__":
    main()
