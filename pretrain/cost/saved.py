"""What a forward keeps for the backward, counted tensor by tensor as the code of `pretrain.model` saves it.

`tests/pretrain/cost/test_saved.py` holds these counts to what autograd really saves.
"""

from dataclasses import replace

from pretrain.cost.shape import CropShape, NetworkShape, TrainingShape, hidden_dim
from pretrain.model.heads import HeadConfig
from pretrain.model.vit import ViTConfig

FP32 = 4
# A block that is differentiated holds gradients: of the stream, of a branch, and of one hidden layer, while
# what was saved of the other goes; what the final norm saved has gone by then.
_BACKWARD_DIMS, _BACKWARD_HIDDEN = 2, 1
# A block whose result alone is wanted: two residual streams, a norm, what a layer gives, and a hidden layer.
_FORWARD_DIMS, _FORWARD_HIDDEN = 4, 2


def kept_images(num: int, rate: float) -> int:
    """Of so many images those whose residual branch is computed (see `add_residual`)."""
    return max(int(num * (1 - rate)), 1) if rate > 0 and num else num


def num_tokens(shape: TrainingShape, backbone: ViTConfig) -> int:
    """Tokens of all crops of the images that are in memory at once."""
    return sum(
        shape.piece_images * crops.num * crops.tokens(backbone) for crops in (shape.globals_, shape.locals_)
    )


def block_bytes(shape: TrainingShape, backbone: ViTConfig) -> int:
    """What one block keeps: of every token its input, its norm, q, k, v, and what goes into each layer."""
    groups = [crops for crops in (shape.globals_, shape.locals_) if crops.num]
    kept = [kept_images(shape.piece_images * crops.num, backbone.drop_path) for crops in groups]
    tokens = sum(num * crops.tokens(backbone) for num, crops in zip(kept, groups, strict=True))
    dim, hidden, size = backbone.dim, hidden_dim(backbone), shape.dtype_bytes
    is_fused = shape.device == "cuda" or shape.dtype == "fp32"
    # Norm's input and output, and what the layer scale multiplies, in either branch; q, k and v; what the
    # projection multiplies. Fused attention keeps what it gave, which is that unless groups are joined.
    numbers = tokens * dim * (3 + 3 + 3 + 1 + (is_fused and len(groups) > 1))
    numbers += tokens * hidden * (2 if backbone.ffn == "mlp" else 4)
    if backbone.drop_path:  # what is added to a part of the images is kept by the addition
        numbers += 2 * tokens * dim
    stats = 4 * tokens * (FP32 if shape.device == "cuda" else size)  # mean and deviation of two norms
    if is_fused:
        stats += tokens * backbone.num_heads * FP32
    else:
        numbers += sum(
            num * backbone.num_heads * crops.tokens(backbone) ** 2
            for num, crops in zip(kept, groups, strict=True)
        )
    return numbers * size + stats


def backbone_bytes(shape: TrainingShape, backbone: ViTConfig) -> int:
    """What a backbone keeps of the crops in memory, its input and its output included.

    Where activations are checkpointed it keeps the input of every block.
    """
    size, tokens = shape.dtype_bytes, num_tokens(shape, backbone)
    pixels = sum(
        shape.piece_images * crops.num * _pixels(crops, backbone) for crops in (shape.globals_, shape.locals_)
    )
    stream = tokens * backbone.dim * size
    of_block = stream if shape.checkpoint_activations else block_bytes(shape, backbone)
    return pixels * size + 2 * stream + 2 * tokens * FP32 + backbone.depth * of_block


def block_backward_bytes(shape: TrainingShape, backbone: ViTConfig) -> int:
    """What comes on top as the last block is differentiated; one that was checkpointed is computed first."""
    stream = num_tokens(shape, backbone) * shape.dtype_bytes
    made = stream * (_BACKWARD_DIMS * backbone.dim + _BACKWARD_HIDDEN * hidden_dim(backbone))
    again = block_bytes(shape, backbone) if shape.checkpoint_activations else 0
    return made + again - 2 * stream * backbone.dim


def look_bytes(shape: TrainingShape, backbone: ViTConfig) -> int:
    """What a forward without a backward holds at once, of the global crops: the teacher's look."""
    alone = replace(shape, locals_=replace(shape.locals_, num=0))
    hidden = hidden_dim(backbone) * (1 if backbone.ffn == "mlp" else 2)
    width = _FORWARD_DIMS * backbone.dim + _FORWARD_HIDDEN * hidden
    pixels = shape.piece_images * shape.globals_.num * _pixels(shape.globals_, backbone)
    return (num_tokens(alone, backbone) * width + pixels) * shape.dtype_bytes


def head_bytes(shape: TrainingShape, network: NetworkShape) -> int:
    """What the heads of a student keep, but for the scores."""
    cls, patches = head_rows(shape)
    if network.ibot_head is None:
        return _of_head(network.dino_head, cls + patches) * shape.dtype_bytes
    numbers = _of_head(network.dino_head, cls) + _of_head(network.ibot_head, patches)
    return numbers * shape.dtype_bytes


def head_rows(shape: TrainingShape) -> tuple[int, int]:
    """Rows that a student's heads see at once: class tokens of all crops, and masked patches."""
    return shape.piece_images * (shape.globals_.num + shape.locals_.num), shape.piece_masked


def _of_head(head: HeadConfig, rows: int) -> int:
    """Input, four hidden layers, the bottleneck before and after its norm; the last layer's own weights."""
    row = head.dim + 4 * head.hidden_dim + 2 * head.bottleneck_dim + 2
    return rows * row + head.prototypes * (head.bottleneck_dim + 2)


def _pixels(crops: CropShape, backbone: ViTConfig) -> int:
    return crops.rows * crops.columns * backbone.patch_px**2 * backbone.channels
