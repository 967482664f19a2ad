"""Parity of the Gram loss with the official code: every file of `gram/` in LVD_GOLDEN_DIR is a case."""

from typing import Any

import pytest
import torch
from golden import GOLDEN
from safetensors.torch import load_file

from pretrain.loss.gram import gram_loss
from pretrain.loss.group import Alone

FILES = sorted((GOLDEN / "gram").glob("*.safetensors"))
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "not_normalised": {"normalised": False},
    "remove_neg": {"negatives": "zero"},
    "remove_only_teacher_neg": {"negatives": "zero_teacher"},
}


def test_there_are_cases_of_gram() -> None:
    assert FILES, f"no case in {GOLDEN / 'gram'}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_value_and_gradient_of_every_variant(path: Any) -> None:
    tensors = load_file(path)
    made = [name.removesuffix(".loss") for name in tensors if name.endswith(".loss")]
    assert made
    for name in made:
        variant, over = name.split(".")
        student = tensors["student"].clone().requires_grad_()
        loss = gram_loss(student, tensors["teacher"], over=over, group=Alone(), **VARIANTS[variant])
        loss.backward()
        torch.testing.assert_close(loss, tensors[f"{name}.loss"].squeeze(), rtol=1e-5, atol=0, msg=name)
        expected = tensors[f"{name}.grad"]
        assert (student.grad - expected).abs().max() <= 1e-5 * expected.abs().max(), name
