"""What a forward saves, counted and measured: with hooks on every tensor that autograd keeps."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from pretrain.cost.saved import backbone_bytes, block_bytes, head_bytes, kept_images
from pretrain.cost.shape import CropShape, Dtype, NetworkShape, TrainingShape
from pretrain.loss.group import Alone
from pretrain.model.heads import HeadConfig
from pretrain.model.network import Network, Scores
from pretrain.model.vit import Ffn, ViTConfig
from pretrain.objective import Batch, ObjectiveConfig, student_losses

NUM_IMAGES, NUM_LOCAL, PROTOTYPES, MASKED = 5, 3, 300, 7
GLOBAL, LOCAL = 6, 3  # patches a side


class Saved:
    """Counts the bytes that a forward keeps, each storage once, parameters left out."""

    def __init__(self, network: torch.nn.Module) -> None:
        self._own = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
        self._kept: dict[int, Tensor] = {}

    def __enter__(self) -> "Saved":
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._keep, lambda tensor: tensor)
        self._hooks.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._hooks.__exit__(*error)

    def _keep(self, tensor: Tensor) -> Tensor:
        address = tensor.untyped_storage().data_ptr()
        if address not in self._own:
            self._kept[address] = tensor
        return tensor

    @property
    def num_bytes(self) -> int:
        return sum(tensor.untyped_storage().nbytes() for tensor in self._kept.values())


def made(
    ffn: Ffn, dtype: Dtype = "fp32", *, drop_path: float = 0.0, depth: int = 3, separate: bool = False
) -> tuple[TrainingShape, Network, Batch]:
    backbone = ViTConfig(
        dim=40, depth=depth, num_heads=5, patch_px=4, grid=GLOBAL, ffn=ffn, registers=2, drop_path=drop_path
    )
    head = HeadConfig(40, PROTOTYPES, 72, 24)
    network = NetworkShape(backbone, head, replace(head, bottleneck_dim=16) if separate else None)
    globals_, locals_ = CropShape(2, GLOBAL, GLOBAL), CropShape(NUM_LOCAL, LOCAL, LOCAL)
    shape = TrainingShape(
        (network,), None, globals_, locals_, 2.0 * MASKED, NUM_IMAGES, 1, dtype=dtype, device="cpu"
    )
    kind = torch.float32 if dtype == "fp32" else torch.bfloat16
    torch.manual_seed(0)
    masks = torch.zeros(2 * NUM_IMAGES, GLOBAL**2, dtype=torch.bool)
    masks[:, :MASKED] = True
    crops = (
        torch.rand(crops.num * NUM_IMAGES, 3, 4 * crops.rows, 4 * crops.rows).to(kind)
        for crops in (globals_, locals_)
    )
    built = Network(backbone, head, network.ibot_head).to(kind).train()
    return shape, built, Batch(*crops, masks)


@pytest.mark.parametrize("ffn", ["mlp", "swiglu"])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("drop_path", [0.0, 0.4])
def test_a_backbone_saves_what_is_counted(ffn: Ffn, dtype: Dtype, drop_path: float) -> None:
    shape, network, batch = made(ffn, dtype, drop_path=drop_path)
    with Saved(network) as saved:
        kept = network.backbone([batch.globals_, batch.locals_], [batch.masks, None])
    counted = backbone_bytes(shape, shape.students[0].backbone)
    # The final norm's output is not saved by it, and is held by who asked for the features.
    held = sum(sum(part.numel() for part in features[:3]) for features in kept) * shape.dtype_bytes
    assert saved.num_bytes + held == pytest.approx(counted, rel=0.01)


@pytest.mark.parametrize("ffn", ["mlp", "swiglu"])
def test_a_block_saves_what_is_counted(ffn: Ffn) -> None:
    totals = []
    for depth in (2, 3):
        shape, network, batch = made(ffn, depth=depth)
        with Saved(network) as saved:
            features = network.backbone([batch.globals_])  # of one group nothing is joined
        totals.append(saved.num_bytes)
        assert features
    alone = replace(shape, locals_=replace(shape.locals_, num=0))
    assert totals[1] - totals[0] == block_bytes(alone, shape.students[0].backbone)


@pytest.mark.parametrize("separate", [False, True])
def test_heads_save_what_is_counted(separate: bool) -> None:
    shape, network, batch = made("mlp", separate=separate)
    rows = 2 * NUM_IMAGES
    targets = Scores(torch.rand(rows, PROTOTYPES), torch.rand(rows * MASKED, PROTOTYPES))
    with Saved(network) as backbone:
        features = network.backbone([batch.globals_, batch.locals_], [batch.masks, None])
        held = features[0].cls.untyped_storage().nbytes()  # which KoLeo keeps
    with Saved(network) as saved:
        losses = student_losses(network, batch, targets, ObjectiveConfig(), group=Alone())
    assert losses.total.requires_grad
    num_cls, num_patches = (2 + NUM_LOCAL) * NUM_IMAGES, rows * MASKED
    scores = 4 * (num_cls + num_patches) * PROTOTYPES
    # Targets of the patches, those of the globals swapped, and those of the locals, summed.
    wanted = 4 * (num_patches + 2 * NUM_IMAGES + NUM_LOCAL * NUM_IMAGES) * PROTOTYPES
    measured = saved.num_bytes - backbone.num_bytes - held
    assert head_bytes(shape, shape.students[0]) + scores + wanted == pytest.approx(measured, rel=0.02)


def test_a_checkpointed_backbone_keeps_the_inputs_of_its_blocks() -> None:
    shape, _, _ = made("mlp")
    backbone = shape.students[0].backbone
    thrifty = replace(shape, checkpoint_activations=True)
    tokens = NUM_IMAGES * (2 * (3 + GLOBAL**2) + NUM_LOCAL * (3 + LOCAL**2))
    saved = 3 * (block_bytes(shape, backbone) - 4 * tokens * backbone.dim)
    assert backbone_bytes(shape, backbone) - backbone_bytes(thrifty, backbone) == pytest.approx(saved)


def test_images_that_keep_their_branch_by_hand() -> None:
    assert [kept_images(num, 0.3) for num in (0, 1, 2, 10)] == [0, 1, 1, 7]
    assert kept_images(10, 0.0) == 10
