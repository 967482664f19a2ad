"""The teacher of a distillation: which one a path means, and whether it has heads."""

from pathlib import Path

import pytest
import torch
from distilled import HERE, backbone_file
from safetensors.torch import load_file, save_file

from curation.errors import ConfigError, ModelError
from pretrain.checkpoint_files import TEACHER, step_dir
from pretrain.teacher import TeacherConfig, load_teacher
from pretrain.weights import load_backbone, metadata_of_config


def test_heads_that_are_asked_for_and_missing(tmp_path: Path) -> None:
    file = backbone_file(tmp_path / "t")
    with pytest.raises(ConfigError, match="has no heads"):
        load_teacher(TeacherConfig(path=str(file), heads="carried"), HERE, warn=pytest.fail)
    with pytest.raises(ModelError, match="No weights"):
        load_teacher(TeacherConfig(path=str(tmp_path / "none")), HERE, warn=pytest.fail)


def test_heads_of_a_training_dump_are_carried(teacher: Path, tmp_path: Path) -> None:
    """As the official code saves its teacher; half a head is none."""
    state = load_file(step_dir(teacher, 3) / TEACHER)
    torch.save({"teacher": state}, tmp_path / "teacher_checkpoint.pth")
    config = TeacherConfig(path=str(tmp_path / "teacher_checkpoint.pth"))
    # Attention heads of 64 channels are a guess that does not fit this model's three of 32.
    with pytest.raises(ModelError, match="do not tell how many attention heads"):
        load_teacher(config, HERE, warn=pytest.fail)
    metadata = metadata_of_config(load_backbone(teacher).config)
    save_file(state, tmp_path / "teacher.safetensors", metadata=metadata)
    found = load_teacher(TeacherConfig(path=str(tmp_path)), HERE, warn=pytest.fail)
    assert found.has_heads
    assert found.centres is None
    del state["dino_head.mlp.2.weight"]
    save_file(state, tmp_path / "teacher.safetensors", metadata=metadata)
    with pytest.raises(ModelError, match=r"1 missing: dino_head\.mlp\.2\.weight"):
        load_teacher(TeacherConfig(path=str(tmp_path)), HERE, warn=pytest.fail)
