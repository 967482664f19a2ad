"""The demo's trainings: a very small vision transformer, for the steps that two cores take in minutes."""

from pathlib import Path

import torch

from pipelines.config.read import ALL_FOLDERS, read_config
from pipelines.training.pretraining import validate
from pretrain.config import PretrainConfig
from pretrain.parallel import place
from pretrain.tensor_files import save_file
from pretrain.train import build
from pretrain.weights import metadata_of_config

CONFIG = "tiny_cpu.yaml"


def demo_training(dataset: Path, run_dir: Path, *, seed: int, num_steps: int) -> PretrainConfig:
    """The training of `tiny_cpu.yaml` on the shards of a run, in `num_steps` steps."""
    _, data = read_config(CONFIG, [], folders=ALL_FOLDERS)
    whole = data["schedule"]["iterations"]
    warmups = ("lr_warmup", "freeze_last_layer", "teacher_temperature_warmup")
    shortened = {name: data["schedule"][name] * num_steps // whole for name in warmups}
    settings = {
        **data,
        "seed": seed,
        "run_dir": str(run_dir),
        "data": {**data["data"], "path": str(dataset)},
        "schedule": {**data["schedule"], "iterations": num_steps, **shortened},
        "checkpoint": {"every": num_steps, "keep": 1},
    }
    return validate(settings, where=f"the demo's training in {run_dir}")


def save_untrained(config: PretrainConfig, file: Path) -> Path:
    """Write the backbone with which a training begins."""
    with place(config.parallel) as where:
        backbone = build(config, where).teacher.network.backbone
    state = {name: tensor.detach().to("cpu", torch.float32) for name, tensor in backbone.state_dict().items()}
    save_file(state, file, metadata=metadata_of_config(backbone.config))
    return file
