"""The config of a distillation: one frozen teacher, and the students that learn from it side by side."""

import math
import re
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from pretrain.checkpoint import CheckpointConfig
from pretrain.config import ModelConfig
from pretrain.data.augment import CropConfig, sides_of
from pretrain.data.config import DataConfig
from pretrain.data.masking import MaskingConfig
from pretrain.evaluate.probe import ProbeConfig
from pretrain.feature_targets import FeaturesConfig
from pretrain.model.convnet import MIN_PX
from pretrain.objective import ObjectiveConfig
from pretrain.optimizer import OptimizerConfig
from pretrain.parallel import ParallelConfig
from pretrain.schedules import ScheduleConfig
from pretrain.sinks.config import SinkConfigs
from pretrain.teacher import TeacherConfig

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$"


class StudentScheduleConfig(BaseModel):
    """What a student has otherwise than `schedule` says; null: as there. Iterations are common to all."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base_lr: float | None = Field(None, gt=0, description="as schedule.base_lr")
    min_lr: float | None = Field(None, ge=0, description="as schedule.min_lr")
    lr_warmup: int | None = Field(None, ge=0, description="as schedule.lr_warmup")
    freeze_last_layer: int | None = Field(None, ge=0, description="as schedule.freeze_last_layer")
    freeze_backbone: int | None = Field(None, ge=0, description="as schedule.freeze_backbone")
    weight_decay: float | None = Field(None, ge=0, description="as schedule.weight_decay")
    weight_decay_end: float | None = Field(None, ge=0, description="as schedule.weight_decay_end")
    momentum: float | None = Field(None, ge=0, le=1, description="as schedule.momentum")
    momentum_end: float | None = Field(None, ge=0, le=1, description="as schedule.momentum_end")


class StudentConfig(BaseModel):
    """One student: its backbone, and how it is optimised."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: ModelConfig = Field(
        ModelConfig(drop_path=0.0), description="its backbone; drop_path is 0 unless it is set"
    )
    optimizer: OptimizerConfig | None = Field(None, description="its own; null: as optimizer")
    schedule: StudentScheduleConfig = StudentScheduleConfig()

    @field_validator("model", mode="before")
    @classmethod
    def _without_stochastic_depth(cls, given: Any) -> Any:
        return {"drop_path": 0.0, **given} if isinstance(given, dict) else given


class DistillConfig(BaseModel):
    """One distillation, by the recipe of DINOv2."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field("distill", pattern=NAME, description="names the default run_dir")
    run_dir: str | None = Field(
        None, description="where the students' folders go, students/NAME; null: runs/NAME"
    )
    seed: int = Field(0, ge=0, lt=1 << 63, description="of everything random")
    batch_images: int = Field(ge=1, description="images in a step, over all ranks")
    accumulate: int = Field(
        1,
        ge=1,
        description="micro-batches in which each rank works through its part of a step, for less memory; the "
        "gradient is that of the whole batch (batch normalisation and stochastic depth see a micro-batch)",
    )
    teacher: TeacherConfig
    students: dict[str, StudentConfig] = Field(
        min_length=1, description="by name; each has a folder, an optimiser, a schedule and checkpoints"
    )
    data: DataConfig = DataConfig()
    crops: CropConfig = CropConfig()
    masking: MaskingConfig = Field(
        MaskingConfig(), description="at which patches of the global crops iBOT compares student and teacher"
    )
    mask_students: bool = Field(
        False,
        description="whether the students see mask tokens there, as in DINOv3's distillation; in DINOv2's "
        "they see everything",
    )
    objective: ObjectiveConfig = Field(
        ObjectiveConfig(), description="for a teacher with heads: DINO, iBOT and KoLeo"
    )
    features: FeaturesConfig = Field(FeaturesConfig(), description="for a teacher without heads")
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig
    checkpoint: CheckpointConfig = CheckpointConfig()
    probe: ProbeConfig | None = Field(
        None, description="measures the students' means as they learn, and the teacher once; null: not"
    )
    sinks: SinkConfigs = Field(
        (), description="where the numbers of every metrics.jsonl go as well: one of each kind at most"
    )
    parallel: ParallelConfig = ParallelConfig()
    max_skipped: int = Field(
        10, ge=0, description="steps in a row whose loss or gradient is not finite before the training fails"
    )

    @field_validator("students")
    @classmethod
    def _names_are_of_folders(cls, students: dict[str, StudentConfig]) -> dict[str, StudentConfig]:
        if bad := [name for name in students if not re.match(NAME, name)]:
            raise ValueError(f"{bad[0]!r} names no folder: letters, digits, _, . and - are expected")
        return students

    @model_validator(mode="after")
    def _students_fit_the_crops(self) -> "DistillConfig":
        for name, student in self.students.items():
            model = student.model
            for field in ("global_size_px", "local_size_px"):
                size = getattr(self.crops, field)
                if any(side % model.patch_px for side in sides_of(size)):
                    raise ValueError(
                        f"crops.{field} ({size}) is no multiple of students.{name}.model.patch_px "
                        f"({model.patch_px})"
                    )
            if model.channels != (num := 3 if self.crops.bands is None else len(self.crops.bands)):
                raise ValueError(
                    f"students.{name}.model.channels ({model.channels}) is not what crops.bands gives ({num})"
                )
            if self.mask_students and model.timm_name is not None:
                raise ValueError(
                    f"students.{name}.model.arch ({model.arch}) has no mask token; leave mask_students out"
                )
            # Without local crops (a teacher without heads has none) their size does not matter.
            sizes = (self.crops.global_size_px, *[self.crops.local_size_px][: self.crops.num_local])
            smallest = min(side for size in sizes for side in sides_of(size))
            if model.timm_name is not None and smallest < MIN_PX:
                raise ValueError(
                    f"students.{name}.model.arch ({model.arch}) takes crops of {MIN_PX} px and more, not "
                    f"{smallest}"
                )
        return self

    @model_validator(mode="after")
    def _crops_fit_their_bands(self) -> "DistillConfig":
        num = 3 if self.crops.bands is None else len(self.crops.bands)
        for name in ("mean", "std"):
            given = getattr(self.crops, name)
            if isinstance(given, tuple) and len(given) != num:
                raise ValueError(f"crops.{name} has {len(given)} numbers for {num} channels; one for each")
        if self.crops.gram_size_px is not None:
            raise ValueError(
                "crops.gram_size_px is for Gram anchoring; a distillation has none, leave it out"
            )
        return self

    @model_validator(mode="after")
    def _bands_are_not_probed(self) -> "DistillConfig":
        if self.probe is not None and self.crops.bands is not None:
            raise ValueError("the probe reads pictures in RGB, and crops.bands are none; remove probe")
        return self

    @model_validator(mode="after")
    def _schedules_fit(self) -> "DistillConfig":
        for name in self.students:
            self.schedule_of(name)
        return self

    def grid_of(self, patch_px: int) -> tuple[int, int]:
        """Rows and columns of patches of this size in a global crop."""
        height, width = sides_of(self.crops.global_size_px)
        return height // patch_px, width // patch_px

    def position_grid(self, name: str) -> int:
        """Rows and columns of the square grid that a student's positions are learned on."""
        return round(math.sqrt(math.prod(self.grid_of(self.students[name].model.patch_px))))

    def schedule_of(self, name: str) -> ScheduleConfig:
        """The schedule of a student: the common one, with what is its own."""
        own = self.students[name].schedule.model_dump(exclude_none=True)
        return ScheduleConfig.model_validate({**self.schedule.model_dump(), **own})

    def optimizer_of(self, name: str) -> OptimizerConfig:
        """The constants of a student's optimiser."""
        return self.students[name].optimizer or self.optimizer
