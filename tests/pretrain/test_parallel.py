"""Many ranks compute what one does: gradients, losses, targets, norms, the teacher."""

import multiprocessing
from typing import Any

import numpy as np
import pytest
import torch
from rank_jobs import (
    backward_job,
    backward_job_of_part,
    compiled_job,
    failing_job,
    group_job,
    logits_of,
    sharded_job,
    steps_job,
)
from ranks import run_ranks
from tiny import tiny_config
from torch import Tensor

from pretrain.config import PretrainConfig
from pretrain.loss.group import Alone
from pretrain.loss.koleo import koleo_loss
from pretrain.loss.sinkhorn import moved_centre, sinkhorn_knopp

GRADIENT = 1e-5  # of the largest gradient of the model
SEPARATE = {"separate": True, "ibot_prototypes": 48, "ibot_bottleneck_dim": 8}


def difference(got: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """The largest difference of two models' gradients, as a share of the largest gradient."""
    assert got.keys() == expected.keys()
    largest = max(g.abs().max().item() for g in expected.values())
    assert largest > 0
    return max((got[n] - expected[n]).abs().max().item() for n in expected) / largest


def alone(config: PretrainConfig) -> dict[str, Any]:
    return run_ranks(backward_job, 1, config)[0]


@pytest.mark.parametrize(
    ("size", "centring", "heads"),
    [
        (2, "sinkhorn", {}),
        (2, "softmax", SEPARATE),
        (4, "sinkhorn", SEPARATE),
        pytest.param(4, "softmax", {}, marks=pytest.mark.accept),
    ],
    ids=["2-sinkhorn-shared", "2-softmax-separate", "4-sinkhorn-separate", "4-softmax-shared"],
)
def test_gradients_of_many_ranks_are_those_of_one(size: int, centring: str, heads: dict[str, Any]) -> None:
    config = tiny_config(heads=heads, objective={"centring": centring})
    expected = alone(config)
    ranks = run_ranks(backward_job, size, config)
    for found in ranks:
        ratio = difference(found["gradients"], expected["gradients"])
        print(f"{size} ranks, {centring}: {ratio:.1e} of the largest gradient")
        assert ratio <= GRADIENT
        assert difference(found["clipped"], expected["clipped"]) <= GRADIENT
        assert found["norms"] == pytest.approx(expected["norms"], rel=1e-5)
        for got, wanted in zip(found["centres"], expected["centres"], strict=True):
            torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-7)
    losses = torch.stack([found["losses"] for found in ranks])
    torch.testing.assert_close(losses.mean(dim=0), expected["losses"], rtol=1e-5, atol=1e-7)
    assert (losses.std(dim=0) > 0).all()  # each rank has a part of its own
    moved = torch.cat(expected["centres"]).abs().max().item()
    assert (moved > 0) == (centring == "softmax")
    for name, gradient in expected["gradients"].items():
        assert gradient.abs().max() > 0, name
    assert set(expected["norms"]) == {"backbone", "dino_head"} | ({"ibot_head"} if heads else set())


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize(
    ("objective", "heads"),
    [
        ({"centring": "sinkhorn", "koleo_weight": 3.0}, {}),
        ({"centring": "softmax", "koleo_weight": 3.0}, SEPARATE),
    ],
    ids=["sinkhorn-shared", "softmax-separate"],
)
def test_gradients_of_micro_batches_are_those_of_the_batch(
    size: int, objective: dict[str, Any], heads: dict[str, Any]
) -> None:
    """KoLeo over the whole batch, Sinkhorn-Knopp or the centre, one rank and two."""
    config = tiny_config(heads=heads, objective=objective)
    expected = alone(config)
    ranks = run_ranks(backward_job, size, config.model_copy(update={"accumulate": 4}))
    for found in ranks:
        ratio = difference(found["gradients"], expected["gradients"])
        print(f"{size} ranks of 4 micro-batches: {ratio:.1e} of the largest gradient")
        assert ratio <= GRADIENT
        for got, wanted in zip(found["centres"], expected["centres"], strict=True):
            torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-7)
    losses = torch.stack([found["losses"] for found in ranks])
    torch.testing.assert_close(losses.mean(dim=0), expected["losses"], rtol=1e-5, atol=1e-7)


def test_a_micro_batch_draws_what_a_rank_draws() -> None:
    """With KoLeo within each, four micro-batches of a process are four processes, stochastic depth too."""
    config = tiny_config(model={"drop_path": 0.4}, objective={"koleo_over": "rank", "koleo_weight": 3.0})
    ranks = run_ranks(backward_job, 4, config)
    found = alone(config.model_copy(update={"accumulate": 4}))
    assert difference(found["gradients"], ranks[0]["gradients"]) <= GRADIENT
    losses = torch.stack([rank["losses"] for rank in ranks]).mean(dim=0)
    torch.testing.assert_close(found["losses"], losses, rtol=1e-5, atol=1e-7)


@pytest.mark.accept
def test_neighbours_within_a_rank() -> None:
    config = tiny_config(objective={"koleo_over": "rank", "koleo_weight": 3.0})
    ranks = run_ranks(backward_job, 2, config)
    expected = [
        run_ranks(backward_job_of_part, 1, config, rank, 2)[0] for rank in range(2)
    ]  # the KoLeo term of each part by itself
    koleo = 3
    for found, wanted in zip(ranks, expected, strict=True):
        torch.testing.assert_close(found["losses"][koleo], wanted["losses"][koleo], rtol=1e-5, atol=1e-7)
    whole = alone(config)
    assert torch.stack([found["losses"][koleo] for found in ranks]).mean() < whole["losses"][koleo]
    # The other terms and their gradients are those of the whole batch all the same.
    without = tiny_config(objective={"koleo_over": "rank", "koleo_weight": 0.0})
    assert (
        difference(run_ranks(backward_job, 2, without)[0]["gradients"], alone(without)["gradients"])
        <= GRADIENT
    )


def terms_of(records: list[dict[str, Any]]) -> np.ndarray:
    names = (
        "loss",
        "dino_local",
        "dino_global",
        "ibot",
        "koleo",
        "grad_norm_backbone",
        "grad_norm_dino_head",
    )
    return np.array([[record[name] for name in names] for record in records])


@pytest.mark.parametrize("centring", ["softmax"])
def test_steps_of_two_ranks_are_those_of_one(centring: str) -> None:
    config = tiny_config(
        objective={"centring": centring}, schedule={"base_lr": 0.01, "lr_warmup": 0, "momentum": 0.5}
    )
    [expected] = run_ranks(steps_job, 1, config, 4)
    first, second = run_ranks(steps_job, 2, config, 4)
    assert terms_of(first["records"]) == pytest.approx(terms_of(second["records"]), rel=1e-9)
    assert terms_of(first["records"]) == pytest.approx(terms_of(expected["records"]), rel=2e-4, abs=1e-5)
    for role in ("student", "teacher"):
        assert first[role].keys() == second[role].keys() == expected[role].keys()
        for name, tensor in first[role].items():
            assert torch.equal(tensor, second[role][name])
            # Where a gradient is rounding alone (the key's bias) AdamW still takes a step of its own size.
            if not name.endswith("attn.qkv.bias"):
                torch.testing.assert_close(tensor, expected[role][name], rtol=0, atol=2e-3)
    moved = max((expected["teacher"][n] - t).abs().max().item() for n, t in expected["before"].items())
    assert moved > 0.02


@pytest.mark.parametrize("size", [1, 2])
def test_the_teacher_is_the_mean_of_itself_and_the_student(size: int) -> None:
    config = tiny_config(schedule={"momentum": 0.9, "momentum_end": 0.9})
    for found in run_ranks(steps_job, size, config, 1):
        for name, tensor in found["teacher"].items():
            wanted = 0.9 * found["before"][name].double() + 0.1 * found["student"][name].double()
            torch.testing.assert_close(tensor.double(), wanted, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("size", [1, 2])
def test_bf16_is_near_fp32(size: int) -> None:
    [exact] = run_ranks(backward_job, 1, tiny_config())
    rough = run_ranks(backward_job, size, tiny_config(parallel={"dtype": "bf16"}))
    losses = torch.stack([found["losses"] for found in rough]).mean(dim=0)
    torch.testing.assert_close(losses, exact["losses"], rtol=0.02, atol=0.01)
    for name, gradient in rough[0]["gradients"].items():
        assert gradient.dtype is torch.float32, name
    assert 1e-6 < difference(rough[0]["gradients"], exact["gradients"]) < 0.1
    flat, wanted = (
        torch.cat([g.flatten() for g in found["gradients"].values()]) for found in (rough[0], exact)
    )
    assert torch.cosine_similarity(flat, wanted, dim=0) > 0.99


@pytest.mark.parametrize(
    ("size", "dtype"), [(1, "fp32"), (1, "bf16"), pytest.param(2, "fp32", marks=pytest.mark.accept)]
)
def test_activations_computed_again_give_the_same_gradients(size: int, dtype: str) -> None:
    change = {"dtype": dtype}
    model = {"drop_path": 0.4}  # what is drawn in the forward is drawn again
    plain, again = (
        run_ranks(steps_job, size, tiny_config(model=model, parallel={**change, **extra}), 2)
        for extra in ({}, {"checkpoint_activations": True})
    )
    for a, b in zip(plain, again, strict=True):
        assert (terms_of(a["records"]) == terms_of(b["records"])).all()
        for name, tensor in a["student"].items():
            assert torch.equal(tensor, b["student"][name]), name


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.accept
def test_compiled_blocks_give_the_same_losses(dtype: str) -> None:
    plain, compiled = (
        run_ranks(
            compiled_job, 1, tiny_config(parallel={"dtype": dtype, "compile": compile_}), timeout_s=280
        )[0]
        for compile_ in (False, True)
    )
    assert (plain["num_graphs"], compiled["num_graphs"] > 0) == (0, True)
    rel = 1e-5 if dtype == "fp32" else 0.02
    assert plain["losses"] == pytest.approx(compiled["losses"], rel=rel)


@pytest.mark.parametrize("lengths", [[20, 4], [3, 21, 0, 24]])
def test_parts_of_any_size_get_their_rows_of_the_targets(lengths: list[int]) -> None:
    size = len(lengths)
    logits, features = logits_of(size)
    ranks = run_ranks(group_job, size, lengths)
    targets = torch.cat([found["sinkhorn"] for found in ranks])
    expected = sinkhorn_knopp(logits, temperature=0.3, group=Alone())
    torch.testing.assert_close(targets, expected, rtol=1e-5, atol=1e-7)
    centre = moved_centre(torch.ones(20), [logits], momentum=0.9, group=Alone())
    leaf = features.clone().requires_grad_()
    koleo = koleo_loss(leaf, group=Alone())
    [koleo_grad] = torch.autograd.grad(koleo, leaf)
    # Rank r weighs every element by (r + 1) times its number: a row collects the weights of all ranks.
    wanted = torch.arange(features.numel()).view_as(features) * sum(range(1, size + 1))
    for rank, found in enumerate(ranks):
        torch.testing.assert_close(found["centre"], centre)
        assert torch.equal(found["gathered"], features)
        torch.testing.assert_close(found["gather_grad"], wanted.chunk(size)[rank].float())
        # A rank's loss is a mean over its own rows, so the gradients are those of the sum of all means.
        torch.testing.assert_close(
            found["koleo_grad"] / size, koleo_grad.chunk(size)[rank], rtol=1e-5, atol=1e-7
        )
    torch.testing.assert_close(torch.stack([found["koleo"] for found in ranks]).mean(), koleo.detach())


def test_each_rank_holds_its_share_of_the_parameters() -> None:
    shares = [found["share"] for found in run_ranks(sharded_job, 4, tiny_config())]
    assert sum(shares) == pytest.approx(1)
    assert max(shares) < 0.3


def test_a_rank_that_fails_ends_the_others() -> None:
    with pytest.raises(AssertionError, match="on purpose"):
        run_ranks(failing_job, 2)
    assert not multiprocessing.active_children()
