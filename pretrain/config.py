"""The config of a training: what is trained, on what, how long, and where."""

from dataclasses import replace

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pretrain.checkpoint import CheckpointConfig
from pretrain.data.augment import CropConfig
from pretrain.data.loader import DataConfig
from pretrain.data.masking import MaskingConfig
from pretrain.evaluate.probe import ProbeConfig
from pretrain.model.heads import HeadConfig
from pretrain.model.vit import Arch, Ffn, ViTConfig, variant, with_registers
from pretrain.objective import ObjectiveConfig
from pretrain.optimizer import OptimizerConfig
from pretrain.parallel import ParallelConfig
from pretrain.schedules import ScheduleConfig
from pretrain.start_config import StartConfig


class ModelConfig(BaseModel):
    """The backbone."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    arch: Arch = Field("vit_small", description="width, depth and heads")
    patch_px: int = Field(14, ge=1, description="side of a patch, px; divides the sides of all crops")
    ffn: Ffn | None = Field(None, description="feed-forward branch; null: the architecture's own")
    depth: int | None = Field(None, ge=1, description="number of blocks; null: the architecture's own")
    registers: int = Field(0, ge=0, description="register tokens (4 in the released register models)")
    layer_scale: float = Field(1e-5, description="where the factors of the residual branches start")
    drop_path: float = Field(
        0.3, ge=0, lt=1, description="share of the student's images without a residual branch"
    )
    weights: str | None = Field(
        None,
        description="start from this backbone instead of at random: a checkpoint of ours or a file of the "
        "official, Hugging Face's or timm's kind",
    )


class HeadsConfig(BaseModel):
    """The projection heads."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prototypes: int = Field(65_536, ge=2, description="of the class tokens' head (K)")
    hidden_dim: int = Field(2_048, ge=1, description="width of the hidden layers")
    bottleneck_dim: int = Field(256, ge=1, description="width of the last hidden layer")
    separate: bool = Field(False, description="whether patches have a head of their own, as in L/14 and g/14")
    ibot_prototypes: int | None = Field(
        None, ge=2, description="of that head; null: as many as the class tokens' head"
    )
    ibot_bottleneck_dim: int | None = Field(None, ge=1, description="of that head; null: likewise")

    @model_validator(mode="after")
    def _only_a_separate_head_has_a_shape(self) -> "HeadsConfig":
        if not self.separate and (self.ibot_prototypes or self.ibot_bottleneck_dim):
            raise ValueError("ibot_prototypes and ibot_bottleneck_dim shape a head that needs separate: true")
        return self


class PretrainConfig(BaseModel):
    """One training of DINOv2."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(
        "pretrain", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$", description="names the default run_dir"
    )
    run_dir: str | None = Field(
        None,
        description="where checkpoints and metrics go; null: runs/NAME, or RUN_DIR/pretrain of a curation",
    )
    seed: int = Field(0, ge=0, lt=1 << 63, description="of everything random")
    start: StartConfig | None = Field(
        None,
        description="begins with a checkpoint of another training, all of it; null: anew, or model.weights",
    )
    batch_images: int = Field(ge=1, description="images in a step, over all ranks")
    accumulate: int = Field(
        1,
        ge=1,
        description="micro-batches in which each rank works through its part of a step, for less memory; the "
        "gradient is that of the whole batch",
    )
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    heads: HeadsConfig = HeadsConfig()
    crops: CropConfig = CropConfig()
    masking: MaskingConfig = MaskingConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig
    checkpoint: CheckpointConfig = CheckpointConfig()
    probe: ProbeConfig | None = Field(None, description="measures the teacher as it learns; null: not")
    parallel: ParallelConfig = ParallelConfig()
    max_skipped: int = Field(
        10, ge=0, description="steps in a row whose loss or gradient is not finite before the training fails"
    )

    @model_validator(mode="after")
    def _crops_are_whole_patches(self) -> "PretrainConfig":
        for name in ("global_size_px", "local_size_px"):
            if getattr(self.crops, name) % self.model.patch_px:
                raise ValueError(
                    f"crops.{name} ({getattr(self.crops, name)}) is no multiple of model.patch_px "
                    f"({self.model.patch_px})"
                )
        return self

    @model_validator(mode="after")
    def _begins_once(self) -> "PretrainConfig":
        if self.start and self.model.weights:
            raise ValueError("start brings a backbone along; leave model.weights out")
        return self

    @property
    def grid(self) -> int:
        """Rows and columns of patches of a global crop."""
        return self.crops.global_size_px // self.model.patch_px

    def backbone(self, *, drop_path: float) -> ViTConfig:
        """The shape of the backbone."""
        model = self.model
        shape = variant(model.arch)
        shape = replace(
            shape,
            patch_px=model.patch_px,
            grid=self.grid,
            ffn=model.ffn or shape.ffn,
            depth=model.depth or shape.depth,
            layer_scale=model.layer_scale,
            drop_path=drop_path,
        )
        return with_registers(shape, model.registers) if model.registers else shape

    def head_shapes(self) -> tuple[HeadConfig, HeadConfig | None]:
        """The shapes of the class tokens' head and, where patches have their own, of theirs."""
        heads = self.heads
        shared = HeadConfig(
            variant(self.model.arch).dim, heads.prototypes, heads.hidden_dim, heads.bottleneck_dim
        )
        own = replace(
            shared,
            prototypes=heads.ibot_prototypes or heads.prototypes,
            bottleneck_dim=heads.ibot_bottleneck_dim or heads.bottleneck_dim,
        )
        return shared, own if heads.separate else None
