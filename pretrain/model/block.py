"""A transformer block over several groups of crops at once, with stochastic depth on a subset of the batch.

Crops of different sizes cannot be stacked, so a block takes a list of groups. Norms and linear layers see the
tokens of all groups as one long matrix, which is one large product instead of several small ones; only the
attention, and the choice of which images a residual is computed for, go group by group.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

NORM_EPS = 1e-6
Groups = Sequence[Float[Tensor, "_ _ dim"]]


class Attention(nn.Module):
    """Multi-head self-attention with one fused projection: softmax(Q Kᵀ / √d_head) V.

    Source: arXiv:2010.11929, appendix A, eq. 5–8.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(
        self, x: Float[Tensor, "tokens dim"], shapes: Sequence[tuple[int, int]]
    ) -> Float[Tensor, "tokens dim"]:
        """Let the tokens of each image see one another.

        Args:
            x: the tokens of all images of all groups, one after the other.
            shapes: (images, tokens an image) of each group.
        """
        mixed = []
        dim = x.shape[1]
        split = (3, self.num_heads, dim // self.num_heads)  # a -1 means nothing where a group is empty
        for part, (num, length) in zip(
            self.qkv(x).split([num * length for num, length in shapes]), shapes, strict=True
        ):
            q, k, v = part.view(num, length, *split).permute(2, 0, 3, 1, 4).unbind(0)
            mixed.append(attend(q, k, v).transpose(1, 2).reshape(num * length, dim))
        projected: Tensor = self.proj(_joined(mixed))
        return projected


def attend(
    q: Float[Tensor, "n h t d"], k: Float[Tensor, "n h t d"], v: Float[Tensor, "n h t d"]
) -> Float[Tensor, "n h t d"]:
    """softmax(q kᵀ / √d) v."""
    if q.dtype is torch.bfloat16 and not q.is_cuda:
        # The CPU's fused kernel takes 2.5 times as long in bf16 as two products with a softmax between them.
        scores: Tensor = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
        return scores.softmax(dim=-1) @ v
    return nn.functional.scaled_dot_product_attention(q, k, v)


class Mlp(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, x: Float[Tensor, "tokens dim"]) -> Float[Tensor, "tokens dim"]:
        """Each token by itself."""
        tokens: Tensor = self.fc2(nn.functional.gelu(self.fc1(x)))
        return tokens


class SwiGLU(nn.Module):
    """silu(x W₁) · (x W₂) W₃, with W₁ and W₂ fused; two thirds of the hidden width, for equal parameters.

    Source: arXiv:2002.05202, §2, eq. 6.
    """

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        hidden_dim = (int(hidden_dim * 2 / 3) + 7) // 8 * 8
        self.w12 = nn.Linear(dim, 2 * hidden_dim)
        self.w3 = nn.Linear(hidden_dim, dim)

    def forward(self, x: Float[Tensor, "tokens dim"]) -> Float[Tensor, "tokens dim"]:
        """Each token by itself."""
        gate, value = self.w12(x).chunk(2, dim=-1)
        tokens: Tensor = self.w3(nn.functional.silu(gate) * value)
        return tokens


class LayerScale(nn.Module):
    """A learned factor for each channel of a residual branch.

    Source: arXiv:2103.17239, §2, eq. 4.
    """

    def __init__(self, dim: int, init: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), init))

    def forward(self, x: Float[Tensor, "tokens dim"]) -> Float[Tensor, "tokens dim"]:
        """Scale every channel."""
        return x * self.gamma


class Block(nn.Module):
    """x + ls₁(attention(norm₁(x))), then x + ls₂(ffn(norm₂(x))).

    Args:
        dim: width, channels.
        num_heads: attention heads; divides `dim`.
        ffn: the feed-forward branch.
        layer_scale: where the factors of the residual branches start.
        drop_path: share of the images for which a residual branch is left out in training.
    """

    def __init__(
        self, dim: int, num_heads: int, *, ffn: nn.Module, layer_scale: float, drop_path: float
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.attn = Attention(dim, num_heads)
        self.ls1 = LayerScale(dim, layer_scale)
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.mlp = ffn
        self.ls2 = LayerScale(dim, layer_scale)
        self.drop_path = drop_path

    def forward(self, groups: Groups) -> list[Tensor]:
        """Groups of images in, the same shapes out; a fresh subset is drawn for each branch and group."""
        rate = self.drop_path if self.training else 0.0
        groups = add_residual(groups, lambda x, shapes: self.ls1(self.attn(self.norm1(x), shapes)), rate=rate)
        return add_residual(groups, lambda x, _shapes: self.ls2(self.mlp(self.norm2(x))), rate=rate)


def add_residual(
    groups: Groups,
    branch: Callable[[Float[Tensor, "tokens dim"], list[tuple[int, int]]], Tensor],
    *,
    rate: float,
) -> list[Tensor]:
    """Add a branch to each group; with a rate, for a random subset of the images alone.

    Of b images max(⌊b (1 − rate)⌋, 1) keep the branch, scaled by b / kept, so that its expectation stays.
    The branch is not computed for the others.

    Args:
        groups: (images, tokens, channels) each.
        branch: of packed tokens and the (images, tokens an image) of each group.
        rate: share of the images without the branch, 0 … 1; 0 draws nothing.

    Source: arXiv:2304.07193, §5 (stochastic depth); arXiv:1603.09382.
    """
    kept = [_draw(group, rate) if rate > 0 and len(group) else None for group in groups]
    taken = [
        group if rows is None else take_rows(group, rows) for group, rows in zip(groups, kept, strict=True)
    ]
    shapes = [(group.shape[0], group.shape[1]) for group in taken]
    residual = branch(_joined([group.flatten(0, 1) for group in taken]), shapes)
    parts = residual.split([num * length for num, length in shapes])
    return [
        group + part.view_as(group)
        if rows is None
        else group.index_add(0, rows, part.view(len(rows), *group.shape[1:]), alpha=len(group) / len(rows))
        for group, rows, part in zip(groups, kept, parts, strict=True)
    ]


class _TakeRows(torch.autograd.Function):
    """Rows that are all different; the gradient is copied back into place.

    torch's own backward of `index_select` adds, for rows might repeat: slow on a CPU, unordered on a GPU.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.shape = x.shape
        return x.index_select(0, rows)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (rows,) = ctx.saved_tensors
        return grads[0].new_zeros(ctx.shape).index_copy_(0, rows, grads[0]), None


def take_rows(x: Float[Tensor, "n *rest"], rows: Int64[Tensor, "m"]) -> Float[Tensor, "m *rest"]:
    """Rows of x, no two of them the same."""
    taken: Tensor = _TakeRows.apply(x, rows)
    return taken


def _draw(group: Tensor, rate: float) -> Tensor:
    num_kept = max(int(len(group) * (1 - rate)), 1)
    return torch.randperm(len(group), device=group.device)[:num_kept]


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)
