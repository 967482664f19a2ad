"""The peak of a step: by hand, and against what the allocator gave out in a real one."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from pretrain.config import PretrainConfig
from pretrain.cost.memory import moments, peak
from pretrain.cost.shape import CropShape, NetworkShape, TrainingShape
from pretrain.data.loader import CropBatch
from pretrain.data.masking import mask_batch
from pretrain.model.heads import HeadConfig
from pretrain.model.vit import ViTConfig
from pretrain.parallel import place
from pretrain.train import build, plan_of
from pretrain.train_step import train_step
from tests.pretrain.tiny import tiny_config

ALWAYS = {"parameters", "moments of AdamW", "mean of the student", "teacher", "working copies"}
NETWORK = NetworkShape(ViTConfig(dim=96, depth=4, num_heads=3, patch_px=8, grid=12), HeadConfig(96, 4096))


def shape(**more: Any) -> TrainingShape:
    common: dict[str, Any] = {"masked_deviation": 25.0, "masked_patches": 43.0, "batch_images": 64}
    crops = {"globals_": CropShape(2, 12, 12), "locals_": CropShape(4, 6, 6)}
    return TrainingShape(
        **{"students": (NETWORK,), "teacher": None, "iterations": 1, **crops, **common, **more}
    )


def test_what_is_always_there_by_hand() -> None:
    num = NETWORK.num_parameters
    [first, *_] = moments(shape(dtype="fp32"))
    assert {name: value for name, value in first.terms.items() if name in ALWAYS} == {
        "parameters": 4 * num, "moments of AdamW": 8 * num, "mean of the student": 4 * num,
    }  # fmt: skip
    # In bf16 a lone rank has copies of both networks; among four each has a quarter, and no copy.
    [first, *_] = moments(shape())
    assert first.terms["working copies"] == 2 * 2 * num
    [first, *_] = moments(shape(ranks=4))
    assert "working copies" not in first.terms
    assert first.terms["moments of AdamW"] == 2 * num
    # Two students of a frozen teacher: both are trained, and both have a mean.
    [first, *_] = moments(shape(students=(NETWORK, NETWORK), teacher=NETWORK))
    assert first.terms["parameters"] == first.terms["mean of the student"] == 8 * num
    assert first.terms["teacher"] == 4 * num
    assert first.terms["working copies"] == 2 * 5 * num


def test_the_update_has_all_gradients_by_hand() -> None:
    update = moments(shape(dtype="fp32"))[-1]
    assert update.name == "the update"
    assert update.terms["gradients"] == 4 * NETWORK.num_parameters
    assert update.num_bytes == sum(update.terms.values())


def test_each_way_to_save_memory_saves_some() -> None:
    whole = peak(shape()).num_bytes
    pieces = [peak(shape(accumulate=num)).num_bytes for num in (2, 4, 8, 16, 32)]
    assert sorted(pieces, reverse=True) == pieces
    assert pieces[0] < whole
    assert peak(shape(checkpoint_activations=True)).num_bytes < whole
    assert peak(shape(ranks=2)).num_bytes < whole
    assert peak(shape(batch_images=32)).num_bytes < whole
    assert whole < peak(shape(dtype="fp32")).num_bytes


CASES = {
    "blocks": {},
    "scores, bf16": {"heads": {"prototypes": 16_384}, "parallel": {"dtype": "bf16"}},
    "pieces": {"batch_images": 16, "accumulate": 4, "heads": {"prototypes": 8_192}},
    "checkpointed": {"parallel": {"checkpoint_activations": True}},
    "stochastic depth, SwiGLU, a centre": {
        "model": {"drop_path": 0.3, "ffn": "swiglu"}, "objective": {"centring": "softmax"},
    },
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_peak_is_that_of_the_allocator(case: str) -> None:
    """What a step takes beyond what is always there, in bytes that torch's allocator gave out."""
    change = {"model": {"depth": 4}, "crops": {"global_size_px": 64, "local_size_px": 32}, **CASES[case]}
    change["model"] = {"depth": 4, **CASES[case].get("model", {})}  # type: ignore[attr-defined]
    config = tiny_config(**change)
    crops, masked, deviation = drawn(config)
    local = config.crops.local_size_px // config.model.patch_px
    network = NetworkShape(config.backbone(drop_path=config.model.drop_path), *config.head_shapes())
    counted = replace(
        shape(
            students=(network,), batch_images=config.batch_images, accumulate=config.accumulate,
            dtype=config.parallel.dtype, device="cpu",
            checkpoint_activations=config.parallel.checkpoint_activations,
            centring=config.objective.centring, masked_patches=masked, masked_deviation=deviation,
        ),
        globals_=CropShape(2, config.grid, config.grid),
        locals_=CropShape(config.crops.num_local, local, local),
    )  # fmt: skip
    highest = peak(counted)
    risen = highest.num_bytes - sum(value for name, value in highest.terms.items() if name in ALWAYS)
    assert risen == pytest.approx(measured(config, crops), rel=0.06)


def drawn(config: PretrainConfig) -> tuple[CropBatch, float, float]:
    """Noise as crops; masked patches of an image, and a deviation by which the fullest piece is this one."""
    num, crops = config.batch_images, config.crops
    masks = torch.from_numpy(
        mask_batch(2 * num, (config.grid, config.grid), config.masking, np.random.default_rng(0))
    )
    globals_ = torch.zeros(2 * num, 3, crops.global_size_px, crops.global_size_px, dtype=torch.uint8)
    locals_ = torch.zeros(
        crops.num_local * num, 3, crops.local_size_px, crops.local_size_px, dtype=torch.uint8
    )
    pieces = masks.view(2, config.accumulate, num // config.accumulate, -1).sum((0, 2, 3))
    more = float(pieces.max() - pieces.float().mean())
    deviation = more / 4 / (2 * num / config.accumulate) ** 0.5
    return CropBatch(0, globals_, locals_, masks, torch.arange(num), 0), float(masks.sum()) / num, deviation


def measured(config: PretrainConfig, crops: CropBatch) -> int:
    """The most bytes that were given out and not given back within a step."""
    with place(config.parallel) as where:
        state, plan = build(config, where), plan_of(config)
        train_step(state, crops, plan, where)
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
            train_step(state, crops, plan, where)
    assert seen.profiler is not None
    found = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    found.sort(key=lambda event: event.start_ns())
    return int(np.cumsum([event.nbytes() for event in found]).max())
