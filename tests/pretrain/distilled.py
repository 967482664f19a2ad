"""A distillation that is small in every respect, and a backbone for it that has no heads."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from drawn_vit import drawn, small
from safetensors.torch import save_file
from tiny import merged, tiny_config

from pretrain.distill_config import DistillConfig
from pretrain.loss.group import Alone
from pretrain.parallel import Place
from pretrain.weights import metadata_of_config

HERE = Place(torch.device("cpu"), torch.float32, Alone(), None)
MICRO = {"arch": "vit_micro", "patch_px": 8, "layer_scale": 0.5}
HALF, COARSE = {"model": {**MICRO, "depth": 2}}, {"model": {**MICRO, "depth": 1, "patch_px": 16}}


def distillation(dataset: Path, teacher: Path, run_dir: Path, /, **change: Any) -> DistillConfig:
    """Six steps, a checkpoint after every second one, two students: of two blocks, and of larger patches."""
    tiny = tiny_config().model_dump(mode="json")
    base = {name: tiny[name] for name in ("batch_images", "crops", "parallel")}
    base |= {
        "run_dir": str(run_dir),
        "teacher": {"path": str(teacher)},
        "students": change.pop("students", {"half": HALF, "coarse": COARSE}),
        "data": {"path": str(dataset), "workers": 0},
        "objective": {"centring": "softmax"},
        "schedule": {"iterations": 6, "lr_warmup": 2, "momentum": 0.8},
        "checkpoint": {"every": 2, "keep": 2},
    }
    return DistillConfig.model_validate(merged(base, change))


def backbone_file(folder: Path, *, patch_px: int = 8) -> Path:
    """A backbone without heads, as another program may have written it."""
    folder.mkdir(exist_ok=True)
    model = drawn(replace(small(), patch_px=patch_px))
    file = folder / "backbone.safetensors"
    save_file(model.state_dict(), file, metadata=metadata_of_config(model.config))
    return file
