"""A training that is small in every respect, and batches for it."""

from typing import Any

import torch

from pretrain.config import PretrainConfig
from pretrain.data.loader import CropBatch

NUM_LOCAL = 2
GLOBAL_PX, LOCAL_PX, PATCH_PX = 32, 16, 8
NUM_PATCHES = (GLOBAL_PX // PATCH_PX) ** 2


def merged(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """A nested dict with some values changed."""
    made = dict(base)
    for key, value in change.items():
        made[key] = merged(base[key], value) if isinstance(value, dict) and key in base else value
    return made


def tiny_config(**change: Any) -> PretrainConfig:
    """Two blocks, 32 prototypes, crops of 32 and 16 px, fp32 on the CPU; fields as nested dicts change it."""
    base = {
        "batch_images": 8,
        "data": {"workers": 0, "prefetch": 2},
        "model": {
            "arch": "vit_micro",
            "depth": 2,
            "patch_px": PATCH_PX,
            "layer_scale": 0.5,
            "drop_path": 0.0,
        },
        "heads": {"prototypes": 32, "hidden_dim": 32, "bottleneck_dim": 16},
        "crops": {
            "global_size_px": GLOBAL_PX,
            "local_size_px": LOCAL_PX,
            "num_local": NUM_LOCAL,
            "blur_kernel_px": 3,
        },
        "schedule": {"iterations": 20, "lr_warmup": 2, "momentum": 0.8},
        "parallel": {"device": "cpu", "dtype": "fp32", "threads": 1},
    }
    return PretrainConfig.model_validate(merged(base, change))


def drawn_batch(num_images: int, *, seed: int = 0, step: int = 0) -> CropBatch:
    """Noise as crops, and masks of which every image has its own number of patches, some of them none."""
    rng = torch.Generator().manual_seed(seed)
    globals_ = torch.randint(0, 256, (2 * num_images, 3, GLOBAL_PX, GLOBAL_PX), generator=rng)
    locals_ = torch.randint(0, 256, (NUM_LOCAL * num_images, 3, LOCAL_PX, LOCAL_PX), generator=rng)
    share = torch.rand(2 * num_images, 1, generator=rng) - 0.3
    masks = torch.rand(2 * num_images, NUM_PATCHES, generator=rng) < share
    rows = torch.arange(num_images)
    return CropBatch(step, globals_.byte(), locals_.byte(), masks, rows, 0)


def share_of(batch: CropBatch, rank: int, size: int) -> CropBatch:
    """A rank's part: of every crop, the images whose turn it is."""
    each = len(batch.rows) // size

    def part(x: torch.Tensor) -> torch.Tensor:
        by_crop = x.unflatten(0, (-1, len(batch.rows)))
        return by_crop[:, rank * each : (rank + 1) * each].flatten(0, 1)

    tensors = (part(x) for x in (batch.globals_, batch.locals_, batch.masks, batch.rows))
    return CropBatch(batch.step, *tensors, 0)
