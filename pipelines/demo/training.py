"""The demo's trainings: a very small vision transformer, for the steps that two cores take in minutes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pipelines.config.read import ALL_FOLDERS, read_config
from pipelines.demo.quality import NEIGHBOURS
from pipelines.training.chain import ChainPlan, plan_chain
from pipelines.training.pretraining import validate
from pretrain.config import PretrainConfig
from pretrain.parallel import place
from pretrain.tensor_files import save_file
from pretrain.train import build
from pretrain.weights import metadata_of_config

CONFIG, CHAIN_CONFIG = "tiny_cpu.yaml", "chain_tiny_cpu.yaml"
WARMUPS = ("lr_warmup", "freeze_last_layer", "teacher_temperature_warmup")


@dataclass(frozen=True)
class ChainSteps:
    """How many iterations each training of the chain has."""

    pretrain: int = 200
    adapt: int = 24
    distill: int = 120


def demo_training(dataset: Path, run_dir: Path, *, seed: int, num_steps: int) -> PretrainConfig:
    """The training of `tiny_cpu.yaml` on the shards of a run, in `num_steps` steps."""
    _, data = read_config(CONFIG, [], folders=ALL_FOLDERS)
    settings = {
        **_shortened(data, num_steps),
        "seed": seed,
        "run_dir": str(run_dir),
        "data": {**data["data"], "path": str(dataset)},
    }
    return validate(settings, where=f"the demo's training in {run_dir}")


def demo_chain(
    dataset: Path, run_dir: Path, *, seed: int, steps: ChainSteps, labelled: Path, test: Path
) -> ChainPlan:
    """The chain of `chain_tiny_cpu.yaml` on the shards of a run, with the ViT of the first training.

    Args:
        dataset: the run.
        run_dir: of the chain.
        seed: of every link.
        steps: of each training.
        labelled: images of which the k nearest tell the concept of others, a folder for each.
        test: these others.
    """
    _, data = read_config(CHAIN_CONFIG, [], folders=ALL_FOLDERS)
    pretrain = data["pretrain"] | {"model": read_config(CONFIG, [], folders=ALL_FOLDERS)[1]["model"]}
    settings = {
        **data,
        "seed": seed,
        "run_dir": str(run_dir),
        "data": {**data["data"], "path": str(dataset)},
        "pretrain": _shortened(pretrain, steps.pretrain),
        "adapt": _shortened(data["adapt"], steps.adapt),
        "distill": _shortened(data["distill"], steps.distill),
        "evaluate": {"train": str(labelled), "test": str(test), "neighbours": [NEIGHBOURS]},
    }
    return plan_chain(settings, where=f"the demo's chain in {run_dir}")


def save_untrained(config: PretrainConfig, file: Path) -> Path:
    """Write the backbone with which a training begins."""
    with place(config.parallel) as where:
        backbone = build(config, where).teacher.network.backbone
    state = {name: tensor.detach().to("cpu", torch.float32) for name, tensor in backbone.state_dict().items()}
    save_file(state, file, metadata=metadata_of_config(backbone.config))
    return file


def _shortened(training: dict[str, Any], num_steps: int) -> dict[str, Any]:
    """A training's settings with its schedule squeezed into `num_steps`, and one checkpoint, at its end."""
    schedule = training["schedule"]
    warmups = {
        name: schedule[name] * num_steps // schedule["iterations"] for name in WARMUPS if name in schedule
    }
    return {
        **training,
        "schedule": {**schedule, "iterations": num_steps, **warmups},
        "checkpoint": {"every": num_steps, "keep": 1},
    }
