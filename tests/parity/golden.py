"""What the official DINOv2 code computed, over every case in LVD_GOLDEN_DIR (default: tests/data/golden)."""

import json
import os
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from pretrain.loss.group import Alone
from pretrain.model.heads import HeadConfig
from pretrain.model.network import Network
from pretrain.model.vit import ViTConfig
from pretrain.objective import Batch, Losses, ObjectiveConfig, student_losses
from pretrain.targets import Centres, initial_centres, teacher_targets

GOLDEN = Path(os.environ.get("LVD_GOLDEN_DIR", Path(__file__).parents[1] / "data" / "golden"))
CASES = sorted(path.stem for path in GOLDEN.glob("*.safetensors"))


@dataclass
class Case:
    """One case: its hyper-parameters, its tensors, and the models that they describe."""

    name: str
    device: str = "cpu"

    @cached_property
    def facts(self) -> dict[str, Any]:
        return json.loads((GOLDEN / f"{self.name}.json").read_text())

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        return load_file(GOLDEN / f"{self.name}.safetensors", device=self.device)

    def network(self, role: str) -> Network:
        facts = self.facts
        backbone = ViTConfig(
            dim=facts["embed_dim"],
            depth=facts["depth"],
            num_heads=facts["num_heads"],
            patch_px=facts["patch_size"],
            grid=facts["global_size"] // facts["patch_size"],
            ffn="mlp" if facts["ffn"] == "mlp" else "swiglu",
            registers=facts["registers"],
            layer_scale=facts["layerscale_init"],
            position_offset=facts["interpolate_offset"],
            position_antialias=facts["interpolate_antialias"],
        )
        head = HeadConfig(
            facts["embed_dim"],
            facts["dino_prototypes"],
            facts["head_hidden_dim"],
            facts["head_bottleneck_dim"],
        )
        separate = replace(head, prototypes=facts["ibot_prototypes"]) if facts["separate_head"] else None
        network = Network(backbone, head, separate)
        network.load_state_dict(self.under(role))
        return network.to(self.device).train(role == "student")

    def under(self, prefix: str) -> dict[str, Tensor]:
        return {
            k.removeprefix(f"{prefix}."): v for k, v in self.tensors.items() if k.startswith(f"{prefix}.")
        }

    @property
    def objective(self) -> ObjectiveConfig:
        is_softmax = self.facts["centering"] == "centering"
        return ObjectiveConfig(
            centring="softmax" if is_softmax else "sinkhorn",
            student_temperature=self.facts["student_temp"],
        )

    @property
    def batch(self) -> Batch:
        get = self.tensors.__getitem__
        return Batch(
            get("in.collated_global_crops"), get("in.collated_local_crops"), get("in.collated_masks")
        )

    @cached_property
    def steps(self) -> tuple[list[Losses], Network]:
        """The losses of two forwards on one batch, and the student with the gradients of the first."""
        student, teacher = self.network("student"), self.network("teacher")
        centres = initial_centres(teacher, device=self.device)
        first, centres = self._forward(student, teacher, centres)
        first.total.backward()
        second, _ = self._forward(student, teacher, centres)
        return [first, second], student

    def _forward(self, student: Network, teacher: Network, centres: Centres) -> tuple[Losses, Centres]:
        temperature = self.facts["teacher_temp"]
        targets, centres = teacher_targets(
            teacher, self.batch, centres, self.objective, temperature=temperature, group=Alone()
        )
        return student_losses(student, self.batch, targets, self.objective, group=Alone()), centres
