"""The arithmetic of a step, in floating-point operations: two for a multiplication with its addition."""

from pretrain.cost.shape import CropShape, NetworkShape, TrainingShape, block_weights, head_weights
from pretrain.model.vit import ViTConfig

# A backward multiplies every matrix twice: for the gradient of its input, and of its weights.
_BACKWARD = 2
# How often scores are made of a piece of the batch (see `pretrain.targets`).
_SCORED = {"sinkhorn": 4, "softmax": 2}


def image_flops(shape: TrainingShape) -> float:
    """Operations of a step for one image: a look of the teacher, and of each student forward and backward."""
    return _teacher_flops(shape) + sum(_student_flops(shape, student) for student in shape.students)


def _teacher_flops(shape: TrainingShape) -> float:
    teacher = shape.teaches
    scored = 1 if shape.accumulate == 1 else _SCORED[shape.centring]
    cls, patches = shape.globals_.num, shape.masked_patches
    heads = scored * _head_flops(teacher, cls=cls, patches=patches)
    return crop_flops(teacher.backbone, shape.globals_) + heads


def _student_flops(shape: TrainingShape, student: NetworkShape) -> float:
    backbone = student.backbone
    kept = 1 - backbone.drop_path
    forward = sum(crop_flops(backbone, crops, kept=kept) for crops in (shape.globals_, shape.locals_))
    again = shape.checkpoint_activations + (shape.accumulate > 1 and shape.spreads_batch)
    cls = shape.globals_.num + shape.locals_.num
    heads = _head_flops(student, cls=cls, patches=shape.masked_patches)
    return (1 + _BACKWARD + again) * forward + (1 + _BACKWARD) * heads


def crop_flops(backbone: ViTConfig, crops: CropShape, *, kept: float = 1.0) -> float:
    """A forward of all crops of one size of an image.

    Args:
        backbone: that sees them.
        crops: of an image.
        kept: share of the images whose residual branches are computed.
    """
    tokens, patches = crops.tokens(backbone), crops.rows * crops.columns
    attention = 4.0 * tokens**2 * backbone.dim  # q kᵀ, and its product with v
    blocks = backbone.depth * kept * (2 * tokens * block_weights(backbone) + attention)
    embedding = 2 * patches * backbone.dim * backbone.channels * backbone.patch_px**2
    return crops.num * (blocks + embedding)


def _head_flops(network: NetworkShape, *, cls: int, patches: float) -> float:
    return 2.0 * (cls * head_weights(network.dino_head) + patches * head_weights(network.patch_head))
