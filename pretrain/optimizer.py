"""Which parameter learns how fast: groups for AdamW, and the teacher's exponential mean."""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from pretrain.schedules import Scheduled

EMBEDDINGS = ("cls_token", "pos_embed", "mask_token", "register_tokens", "patch_embed", "stem")


class OptimizerConfig(BaseModel):
    """The constants of AdamW."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    betas: tuple[float, float] = Field((0.9, 0.999), description="of the two moments")
    layer_decay: float = Field(
        0.9, gt=0, le=1, description="factor on the learning rate from each block to the one before it"
    )
    patch_embed_lr: float = Field(0.2, ge=0, description="a further factor for the patch embedding")
    clip: float = Field(
        3.0,
        ge=0,
        description="largest gradient norm of the backbone and of each head, each by itself; 0: none",
    )


@dataclass(frozen=True, slots=True)
class Rule:
    """How one parameter follows the schedules."""

    lr: float  # factor
    weight_decay: float  # factor: 0 or 1
    is_last_layer: bool
    is_backbone: bool = True


def rule_of(name: str, *, depth: int, config: OptimizerConfig, is_vector: bool = False) -> Rule:
    """The rule for a parameter by its key in a `Network`.

    The learning rate falls by `layer_decay` from the final norm (1) over the blocks down to the embeddings.
    Biases, norms and layer scales are not decayed; tokens, positions and last layers are. In a convolutional
    network a stage is what a block is in a transformer, and the stem what the embeddings are; the further
    factor of the patch embedding is not for it, as what it is there for, spikes of that layer's gradient, is
    a thing of transformers (arXiv:2104.02057, §4.2).

    Args:
        name: such as `backbone.blocks.3.attn.qkv.bias`.
        depth: blocks of the backbone.
        config: the constants.
        is_vector: whether it has one axis: the name of a convolutional network's norm does not tell.

    Source: arXiv:2106.08254, appendix; the exceptions are those of the official code.
    """
    module, _, rest = name.partition(".")
    lr = 1.0
    if module == "backbone":
        if rest.startswith(EMBEDDINGS):
            layer = 0
        elif rest.startswith("blocks."):
            layer = int(rest.split(".")[1]) + 1
        else:
            layer = depth + 1
        lr = config.layer_decay ** (depth + 1 - layer)
        if rest.startswith("patch_embed"):
            lr *= config.patch_embed_lr
    is_free = is_vector or name.endswith(".bias") or "norm" in name or "gamma" in name
    return Rule(lr, 0.0 if is_free else 1.0, "last_layer" in name, module == "backbone")


def build_adamw(
    parameters: Iterable[tuple[str, nn.Parameter]], *, depth: int, config: OptimizerConfig
) -> torch.optim.AdamW:
    """AdamW with one group for each rule that occurs; `apply_schedule` sets what each group uses.

    Args:
        parameters: of a `Network`, by key.
        depth: blocks of its backbone.
        config: the constants.
    """
    groups: dict[Rule, list[tuple[str, nn.Parameter]]] = {}
    for name, parameter in parameters:
        rule = rule_of(name, depth=depth, config=config, is_vector=parameter.ndim == 1)
        groups.setdefault(rule, []).append((name, parameter))
    members = [{"params": named, "rule": rule} for rule, named in groups.items()]
    return torch.optim.AdamW(members, lr=0.0, betas=config.betas, fused=True)


def apply_schedule(optimizer: torch.optim.Optimizer, values: Scheduled) -> None:
    """Set the learning rate and weight decay of every group for this iteration."""
    for group in optimizer.param_groups:
        rule: Rule = group["rule"]
        head_lr = values.last_layer_lr if rule.is_last_layer else values.lr
        group["lr"] = rule.lr * (values.backbone_lr if rule.is_backbone else head_lr)
        group["weight_decay"] = rule.weight_decay * values.weight_decay


def clip_gradients(network: nn.Module, *, limit: float) -> dict[str, Tensor]:
    """Clip the gradient of each direct part of a network (backbone, heads) by its own norm.

    Returns:
        The norm of each part before clipping.
    """
    norms = {}
    for name, part in network.named_children():
        parameters = [p for p in part.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
        if limit:
            torch.nn.utils.clip_grads_with_norm_(parameters, limit, norm)
        norms[name] = norm
    return norms


@torch.no_grad()
def move_teacher(teacher: nn.Module, student: nn.Module, *, momentum: float) -> None:
    """teacher ← momentum · teacher + (1 − momentum) · student, for every parameter, heads included.

    The running statistics of batch norms move alike: copied, they would be those of other weights.

    Source: arXiv:2104.14294, §3.1; the statistics: arXiv:2101.08482, §3.
    """
    pairs = zip(_local(teacher), _local(student), strict=True)
    old, new = (list(side) for side in zip(*pairs, strict=True))
    torch._foreach_lerp_(old, new, 1 - momentum)


def _local(module: nn.Module) -> Iterator[Tensor]:
    """The parameters, or the part of each that this process holds, and the buffers."""
    for parameter in itertools.chain(module.parameters(), module.buffers()):
        tensor: Any = parameter.data
        yield tensor.to_local() if hasattr(tensor, "to_local") else tensor
