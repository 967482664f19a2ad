"""Operations of a step, against those that torch counts as it does it."""

from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pretrain.cost.shape import CropShape, NetworkShape, TrainingShape
from pretrain.cost.work import image_flops
from pretrain.loss.group import Alone
from pretrain.model.heads import HeadConfig
from pretrain.model.network import Network
from pretrain.model.vit import Ffn, ViTConfig
from pretrain.objective import Batch, ObjectiveConfig, student_losses
from pretrain.targets import initial_centres, teacher_targets

NUM_IMAGES, NUM_LOCAL, MASKED = 4, 2, 5


@pytest.mark.parametrize("ffn", ["mlp", "swiglu"])
def test_as_many_as_torch_counts(ffn: Ffn) -> None:
    backbone = ViTConfig(dim=48, depth=2, num_heads=3, patch_px=4, grid=4, ffn=ffn)
    head = HeadConfig(48, 120, 64, 16)
    student, teacher = Network(backbone, head, None), Network(backbone, head, None)
    masks = torch.zeros(2 * NUM_IMAGES, 16, dtype=torch.bool)
    masks[:, :MASKED] = True
    batch = Batch(torch.rand(2 * NUM_IMAGES, 3, 16, 16), torch.rand(NUM_LOCAL * NUM_IMAGES, 3, 8, 8), masks)
    objective = ObjectiveConfig(koleo_weight=0.0)
    # Fused attention computes the scores once more in its backward, which is no part of the arithmetic here.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        targets, _ = teacher_targets(
            teacher.eval(), batch, initial_centres(teacher), objective, temperature=0.07, group=Alone()
        )
        student_losses(student, batch, targets, objective, group=Alone()).total.backward()
    shape = TrainingShape(
        (NetworkShape(backbone, head),), None, CropShape(2, 4, 4), CropShape(NUM_LOCAL, 2, 2),
        2.0 * MASKED, NUM_IMAGES, 1,
    )  # fmt: skip
    # No gradient is wanted of the pixels, and neighbours and Sinkhorn's products are not counted.
    assert NUM_IMAGES * image_flops(shape) == pytest.approx(counter.get_total_flops(), rel=0.03)


def test_what_comes_on_top() -> None:
    backbone = ViTConfig(dim=48, depth=4, num_heads=3, patch_px=4, grid=4)
    network = NetworkShape(backbone, HeadConfig(48, 64, 32, 8))
    shape = TrainingShape(
        (network,), None, CropShape(2, 4, 4), CropShape(0, 1, 1), 0.0, 8, 1, spreads_batch=False
    )
    plain = image_flops(shape)
    # Three forwards' worth of the student and one of the teacher: one more forward is a quarter more.
    again = image_flops(replace(shape, checkpoint_activations=True))
    assert again == pytest.approx(1.25 * plain, rel=0.02)
    spread = image_flops(replace(shape, accumulate=2, spreads_batch=True))
    scored = image_flops(replace(shape, accumulate=2))
    assert spread - scored == pytest.approx(again - plain)
    # The teacher's head sees both globals four times instead of once.
    assert scored - plain == 3 * 2 * 2 * (48 * 32 + 32 * 32 + 32 * 8 + 8 * 64)
    # Stochastic depth leaves out residual branches of the student, not of the teacher.
    half = replace(network, backbone=replace(backbone, drop_path=0.5))
    assert image_flops(replace(shape, students=(half,))) == pytest.approx(plain * 2.5 / 4, rel=0.02)
    # Of two students with one teacher, the teacher looks once.
    two = replace(shape, students=(network, network), teacher=network)
    assert image_flops(two) == pytest.approx(plain * 7 / 4)
