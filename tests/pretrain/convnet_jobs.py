"""Small trainings of convolutional networks, and what one of several ranks computes of them."""

from typing import Any

import torch
from tiny import NUM_LOCAL, share_of, tiny_config
from torch import Tensor

from pretrain.config import PretrainConfig
from pretrain.data.loader import CropBatch
from pretrain.parallel import full, place
from pretrain.train import build, plan_of
from pretrain.train_step import State, train_step

RESNET, CONVNEXT = "timm:test_resnet", "timm:test_convnext"
NUM_IMAGES = 8
GLOBAL_PX, LOCAL_PX = 64, 32


def convnet_config(arch: str = RESNET, **change: Any) -> PretrainConfig:
    """DINO and KoLeo on crops that are as small as the network takes."""
    return tiny_config(
        model={
            "arch": arch,
            "depth": None,
            "layer_scale": 1e-5,
            "patch_px": 16,
            **change.pop("model", {}),
        },
        crops={"global_size_px": GLOBAL_PX, "local_size_px": LOCAL_PX, **change.pop("crops", {})},
        objective={"ibot_weight": 0.0, **change.pop("objective", {})},
        masking={"probability": 0.0},
        **change,
    )


def noise(seed: int = 0) -> CropBatch:
    """Noise as crops; nothing is masked."""
    rng = torch.Generator().manual_seed(seed)
    globals_ = torch.randint(0, 256, (2 * NUM_IMAGES, 3, GLOBAL_PX, GLOBAL_PX), generator=rng)
    locals_ = torch.randint(0, 256, (NUM_LOCAL * NUM_IMAGES, 3, LOCAL_PX, LOCAL_PX), generator=rng)
    masks = torch.zeros(2 * NUM_IMAGES, (GLOBAL_PX // 16) ** 2, dtype=torch.bool)
    return CropBatch(0, globals_.byte(), locals_.byte(), masks, torch.arange(NUM_IMAGES), 0)


def statistics(network: torch.nn.Module) -> dict[str, Tensor]:
    """The running statistics of batch norms, copied."""
    return {name: buffer.clone() for name, buffer in network.named_buffers()}


def run_steps(config: PretrainConfig, num_steps: int, *, again: bool = False) -> tuple[State, list[float]]:
    """Some steps of a lone process on noise, or on one batch of it again and again; the losses."""
    losses = []
    with place(config.parallel) as where:
        state = build(config, where)
        for step in range(num_steps):
            batch = noise(0 if again else step)
            losses.append(train_step(state, batch, plan_of(config), where).records[0]["loss"])
    return state, losses


def convnet_steps_job(config: PretrainConfig, num_steps: int) -> dict[str, Any]:
    """Some steps of a rank: its losses, the statistics after each, and the student's parameters at last."""
    found: dict[str, Any] = {"losses": [], "student": [], "teacher": []}
    with place(config.parallel) as where:
        state = build(config, where)
        for step in range(num_steps):
            batch = share_of(noise(step), where.group.rank, where.group.size)
            outcome = train_step(state, batch, plan_of(config), where)
            found["losses"].append(outcome.records[0]["loss"])
            found["student"].append(statistics(state.learners[0].student.network))
            found["teacher"].append(statistics(state.teacher.network))
        network = state.learners[0].student.network
        found["parameters"] = {name: full(p).clone() for name, p in network.named_parameters()}
    return found
