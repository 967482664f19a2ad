"""Stochastic depth over a subset of the batch, packed groups, and the parts of a block."""

from collections import Counter

import pytest
import torch
from torch import Tensor, nn

from pretrain.model import block as module
from pretrain.model.block import Attention, Block, LayerScale, Mlp, SwiGLU, add_residual, take_rows

DIM = 24


def make_block(drop_path: float = 0.0, ffn: type[nn.Module] = Mlp) -> Block:
    torch.manual_seed(0)
    return Block(DIM, 3, ffn=ffn(DIM, 4 * DIM), layer_scale=0.7, drop_path=drop_path)


def ones(x: Tensor, _shapes: list[tuple[int, int]]) -> Tensor:
    return torch.ones_like(x)


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5, 0.99])
@pytest.mark.parametrize("num", [1, 2, 7, 16])
def test_so_many_images_keep_the_branch(rate: float, num: int) -> None:
    kept = max(int(num * (1 - rate)), 1)
    shapes = []

    def spy(x: Tensor, given: list[tuple[int, int]]) -> Tensor:
        shapes.append((len(x), given))
        return torch.ones_like(x)

    [out] = add_residual([torch.zeros(num, 5, DIM)], spy, rate=rate)
    assert shapes == [(kept * 5, [(kept, 5)])]  # nothing is computed for the others
    changed = out[:, 0, 0] != 0
    assert changed.sum() == kept
    torch.testing.assert_close(out[changed], torch.full((kept, 5, DIM), num / kept))
    assert (out[~changed] == 0).all()


def test_every_image_is_kept_equally_often() -> None:
    torch.manual_seed(1)
    num, rate, draws = 10, 0.3, 1500
    counts = torch.zeros(num)
    pairs: Counter[tuple[int, int]] = Counter()
    mean = torch.zeros(num)
    for _ in range(draws):
        [out] = add_residual([torch.zeros(num, 1, 1)], ones, rate=rate)
        rows = out[:, 0, 0].nonzero()[:, 0].tolist()
        counts[rows] += 1
        pairs.update([(a, b) for a in rows for b in rows if a < b])
        mean += out[:, 0, 0] / draws
    assert (counts / draws - 0.7).abs().max() < 0.05  # 0.7 of the time, ± 0.012
    expected = 0.7 * 6 / 9  # of the 9 others 6 are kept beside it
    assert max(abs(pairs[a, b] / draws - expected) for a in range(num) for b in range(a + 1, num)) < 0.05
    torch.testing.assert_close(mean, torch.ones(num), rtol=0, atol=0.06)  # the expectation stays


def test_each_branch_and_group_draws_its_own_subset(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    draw = module._draw

    def noting(group: Tensor, rate: float) -> Tensor:
        drawn.append(draw(group, rate))
        return drawn[-1]

    monkeypatch.setattr(module, "_draw", noting)
    torch.manual_seed(0)
    layer = make_block(0.5)
    layer([torch.randn(16, 5, DIM), torch.randn(16, 3, DIM)])
    assert [len(rows) for rows in drawn] == [8] * 4  # attention and FFN, two groups each
    assert len({tuple(sorted(rows.tolist())) for rows in drawn}) == 4


def test_the_numbers_drawn_depend_on_the_seed_alone() -> None:
    layer = make_block(0.5)
    x = torch.randn(8, 5, DIM)
    outs = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        outs.append(layer([x])[0])
    assert torch.equal(outs[0], outs[1])
    assert not torch.equal(outs[0], outs[2])


def test_nothing_is_dropped_in_eval_mode() -> None:
    plain, dropping = make_block(), make_block(0.5)
    dropping.load_state_dict(plain.state_dict())
    x = torch.randn(8, 5, DIM)
    assert torch.equal(dropping.eval()([x])[0], plain([x])[0])
    state = torch.get_rng_state()
    dropping([x])
    assert torch.equal(torch.get_rng_state(), state)  # and nothing is drawn


@pytest.mark.parametrize("rate", [0.0, 0.4])
def test_an_empty_group(rate: float) -> None:
    full = torch.randn(4, 5, DIM)
    a, b = make_block(rate)([full, torch.empty(0, 3, DIM)])
    assert a.shape == full.shape
    assert b.shape == (0, 3, DIM)


@pytest.mark.parametrize("ffn", [Mlp, SwiGLU])
def test_packed_groups_are_separate_groups(ffn: type[nn.Module]) -> None:
    layer = make_block(ffn=ffn)
    groups = [torch.randn(4, 17, DIM), torch.randn(6, 5, DIM), torch.randn(1, 1, DIM)]
    together = layer(groups)
    for group, out in zip(groups, together, strict=True):
        torch.testing.assert_close(out, layer([group])[0], rtol=1e-5, atol=1e-6)


def test_attention_of_torch() -> None:
    torch.manual_seed(0)
    ours = Attention(DIM, 3)
    theirs = nn.MultiheadAttention(DIM, 3, batch_first=True)
    theirs.in_proj_weight.data, theirs.in_proj_bias.data = ours.qkv.weight.data, ours.qkv.bias.data
    theirs.out_proj.weight.data, theirs.out_proj.bias.data = ours.proj.weight.data, ours.proj.bias.data
    x = torch.randn(4, 7, DIM)
    expected = theirs(x, x, x, need_weights=False)[0]
    torch.testing.assert_close(
        ours(x.flatten(0, 1), [(4, 7)]).view(4, 7, DIM), expected, rtol=1e-5, atol=1e-6
    )


def test_attention_in_bf16_is_near_that_in_fp32() -> None:
    q, k, v = torch.randn(3, 2, 3, 9, 8)
    expected = nn.functional.scaled_dot_product_attention(q, k, v)
    got = module.attend(q.bfloat16(), k.bfloat16(), v.bfloat16())
    torch.testing.assert_close(got.float(), expected, rtol=0.05, atol=0.05)


def test_a_block_by_its_formula() -> None:
    layer = make_block().double()
    x = torch.randn(3, 5, DIM, dtype=torch.float64)

    def norm(x: Tensor, of: nn.LayerNorm) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        return centred / (x.var(-1, unbiased=False, keepdim=True) + 1e-6).sqrt() * of.weight + of.bias

    after = x + 0.7 * layer.attn(norm(x, layer.norm1).flatten(0, 1), [(3, 5)]).view_as(x)
    hidden = nn.functional.gelu(norm(after, layer.norm2) @ layer.mlp.fc1.weight.T + layer.mlp.fc1.bias)
    expected = after + 0.7 * (hidden @ layer.mlp.fc2.weight.T + layer.mlp.fc2.bias)
    torch.testing.assert_close(layer([x])[0], expected)


@pytest.mark.parametrize(("dim", "hidden"), [(1536, 4096), (24, 64), (384, 1024), (36, 96)])
def test_swiglu_width(dim: int, hidden: int) -> None:
    with torch.device("meta"):
        ffn = SwiGLU(dim, 4 * dim)
    assert ffn.w12.weight.shape == (2 * hidden, dim)
    assert ffn.w3.weight.shape == (dim, hidden)


def test_swiglu_by_hand() -> None:
    ffn = SwiGLU(1, 12)  # hidden 8
    for p in ffn.parameters():
        nn.init.zeros_(p)
    ffn.w12.weight.data[0], ffn.w12.weight.data[8], ffn.w3.weight.data[0, 0] = 2.0, 3.0, 0.5
    # silu(2) · 3 · 0.5
    expected = 2 / (1 + torch.exp(torch.tensor(-2.0))) * 1.5
    torch.testing.assert_close(ffn(torch.ones(1, 1))[0, 0], expected)


def test_layer_scale() -> None:
    scale = LayerScale(3, 0.5)
    scale.gamma.data[1] = 2
    assert scale(torch.ones(2, 3)).tolist() == [[0.5, 2, 0.5]] * 2


def test_gradient_of_taken_rows() -> None:
    x = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    rows = torch.tensor([4, 0, 5])
    assert torch.equal(take_rows(x, rows), x[rows])
    assert torch.autograd.gradcheck(lambda x: take_rows(x, rows), (x,))
    [none] = torch.autograd.grad(take_rows(x, rows[:0]).sum(), x)
    assert (none == 0).all()
    weights = torch.randn(3, 3, dtype=torch.float64)
    [ours], [theirs] = (torch.autograd.grad((t * weights).sum(), x) for t in (take_rows(x, rows), x[rows]))
    assert torch.equal(ours, theirs)


def test_gradient_through_dropped_images() -> None:
    """A dropped image's gradient passes the block unchanged; a kept one's is that of the scaled branch."""
    x = torch.randn(4, 2, 3, dtype=torch.float64, requires_grad=True)
    torch.manual_seed(0)
    [out] = add_residual([x], lambda x, _: 3 * x, rate=0.5)
    [gradient] = torch.autograd.grad(out.sum(), x)
    assert sorted(gradient[:, 0, 0].tolist()) == [1, 1, 7, 7]  # 1 + 3 · 4 / 2
