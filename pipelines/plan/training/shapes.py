"""The shape of a training that a config describes."""

from dataclasses import dataclass
from typing import Any

from curation.errors import ConfigError
from pretrain.config import PretrainConfig
from pretrain.cost.shape import CropShape, Device, Dtype, NetworkShape, TrainingShape
from pretrain.data.augment import sides_of
from pretrain.data.masking import MaskingConfig
from pretrain.model.convnet import ConvNetConfig

NUM_GLOBAL = 2


@dataclass(frozen=True)
class Cards:
    """What a training is planned for: so many cards of a kind, with a rank on each."""

    num: int = 1
    device: Device = "cuda"
    dtype: Dtype = "bf16"


def shape_of(config: PretrainConfig, cards: Cards) -> TrainingShape:
    """The shape of a pretraining on these cards.

    Raises:
        ConfigError: it trains a convolutional network.
    """
    backbone = config.backbone(drop_path=config.model.drop_path)
    if isinstance(backbone, ConvNetConfig):
        raise ConfigError(
            "A training of a convolutional network is not planned",
            got=f"model.arch {config.model.arch}",
            expected="a vision transformer: its costs were measured",
        )
    network = NetworkShape(backbone, *config.head_shapes())
    rows, columns = config.crop_grid
    mean, deviation = _masked(config.masking, rows * columns)
    local = [side_px // config.model.patch_px for side_px in sides_of(config.crops.local_size_px)]
    return TrainingShape(
        (network,),
        None,
        CropShape(NUM_GLOBAL, rows, columns),
        CropShape(config.crops.num_local, *local),
        NUM_GLOBAL * mean,
        config.batch_images,
        config.schedule.total,
        masked_deviation=deviation,
        ranks=cards.num,
        accumulate=config.accumulate,
        dtype=cards.dtype,
        device=cards.device,
        checkpoint_activations=config.parallel.checkpoint_activations,
        centring=config.objective.centring,
        spreads_batch=config.objective.koleo_over == "batch" and config.objective.koleo_weight > 0,
    )


def _masked(config: MaskingConfig, num_patches: int) -> tuple[float, float]:
    """Mean and standard deviation of the masked patches of a global crop.

    A share of the crops is masked, each by a ratio out of a range, whose strata together are the whole of it.
    """
    low, high, share = config.ratio_min, config.ratio_max, config.probability
    mean = share * (low + high) / 2
    square = share * (low * low + low * high + high * high) / 3
    return num_patches * mean, num_patches * max(square - mean * mean, 0.0) ** 0.5


def changed(config: PretrainConfig, **settings: Any) -> PretrainConfig:
    """The config with other settings, named by their fields with `__` for a dot, and checked anew."""
    data = config.model_dump(mode="python")
    for name, value in settings.items():
        *path, last = name.split("__")
        here = data
        for part in path:
            here = here[part]
        here[last] = value
    return PretrainConfig.model_validate(data)
