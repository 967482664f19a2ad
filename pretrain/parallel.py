"""Where a network computes: on one process or sharded over many, in which precision. No mathematics here.

One process needs no launcher and no process group. Under `torchrun` the parameters are sharded by FSDP2, a
group for each block, the rest of the backbone, and each head. Either way the optimiser, the teacher's mean
and the checkpoints see fp32 parameters, and a forward in bf16 sees copies of them.
"""

import copy
import ctypes
import os
import platform
import signal
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, Literal

import torch
import torch.distributed as dist
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils.checkpoint import checkpoint

from curation.cpu import has_bf16
from curation.errors import ConfigError
from curation.orphans import end_with_parent, named_parent
from pretrain.loss.group import Alone, Group
from pretrain.model.batch_norm import uncounted
from pretrain.model.network import Network

# The others wait while the first rank writes a checkpoint, or a node fetches its first shards.
_TIMEOUT = timedelta(minutes=30)


class ParallelConfig(BaseModel):
    """Where the training runs. Which images are seen does not depend on it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: cuda where present")
    dtype: Literal["auto", "fp32", "bf16"] = Field(
        "auto",
        description="of forward and backward; parameters, their update and all sums are fp32. auto: bf16 on "
        "CUDA and on a CPU that multiplies it in hardware",
    )
    processes: int = Field(
        1, ge=1, description="on this machine; more than one are started by `lvd pretrain` under torchrun"
    )
    threads: int | None = Field(
        None, ge=1, description="CPU threads of a process; null: torch's own choice. Sums depend on it"
    )
    compile: bool = Field(False, description="torch.compile every block")
    checkpoint_activations: bool = Field(
        False, description="compute the activations of a block again in the backward, to save memory"
    )


class Processes:
    """The group of all ranks of `torch.distributed`."""

    def __init__(self) -> None:
        self.size = dist.get_world_size()
        self.rank = dist.get_rank()

    def sum(self, x: Tensor) -> Tensor:
        """The sum over all ranks."""
        total = x.detach().clone()
        dist.all_reduce(total)
        return total

    def gather(self, x: Float[Tensor, "b dim"]) -> Float[Tensor, "n dim"]:
        """The rows of all ranks, differentiable."""
        rows: Tensor = _Gather.apply(x, self.size, self.rank)
        return rows


class _Gather(torch.autograd.Function):
    """All-gather of equal parts; a row's gradient is the sum of those that every rank has for it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, size: int, rank: int) -> Tensor:
        ctx.rank, ctx.num_rows = rank, len(x)
        parts = [torch.empty_like(x) for _ in range(size)]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        total = grads[0].clone()
        dist.all_reduce(total)
        return total[ctx.rank * ctx.num_rows :][: ctx.num_rows], None, None


@dataclass(frozen=True)
class Place:
    """What a process has: its device, the precision of its forwards, and the others."""

    device: torch.device
    dtype: torch.dtype
    group: Group
    mesh: DeviceMesh | None  # None for one process


@contextmanager
def place(config: ParallelConfig) -> Iterator[Place]:
    """Take this process's place: alone, or among those that torchrun has started.

    Raises:
        ConfigError: for a device that is not there.
    """
    kind = config.device
    if kind == "auto":
        kind = "cuda" if torch.cuda.is_available() else "cpu"
    if kind == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "No CUDA device", got="device: cuda", expected="device: cpu or auto on this machine"
        )
    dtype = config.dtype
    if dtype == "auto":
        dtype = "bf16" if kind == "cuda" or has_bf16() else "fp32"
    kinds = {"fp32": torch.float32, "bf16": torch.bfloat16}
    if config.threads:
        torch.set_num_threads(config.threads)
    if kind == "cpu":
        keep_freed_memory()
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Place(torch.device(kind), kinds[dtype], Alone(), None)
        return
    _stop_with_launcher()
    device = _join_others(kind)
    try:
        mesh = init_device_mesh(kind, (dist.get_world_size(),))
        with warnings.catch_warnings():
            # The features are views of one tensor; nothing writes into them.
            warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
            yield Place(device, kinds[dtype], Processes(), mesh)
    finally:
        dist.destroy_process_group()


def _join_others(kind: str) -> torch.device:
    """Meet the other processes that torchrun has started; returns this one's device."""
    if "LOCAL_RANK" not in os.environ:
        raise ConfigError(
            "WORLD_SIZE is set, and there is no LOCAL_RANK",
            got=f"WORLD_SIZE={os.environ['WORLD_SIZE']}",
            expected="what torchrun sets",
            remedy="Start the training with torchrun, or unset WORLD_SIZE for a lone process",
        )
    if kind != "cuda":
        dist.init_process_group("gloo", timeout=_TIMEOUT)
        return torch.device(kind)
    device = torch.device(kind, int(os.environ["LOCAL_RANK"]))
    torch.cuda.set_device(device)
    dist.init_process_group("nccl", device_id=device, timeout=_TIMEOUT)
    return device


class Placed:
    """A network where it computes.

    The statistics of batch norms are fp32 in both, and the same tensors. Each process counts its own images,
    piece by piece of its batch; after the step the processes take the mean of theirs.

    Attributes:
        network: fp32 parameters, sharded among many processes: what is optimised, averaged and saved.
        working: what is called. The network itself, or a bf16 copy of it on a lone process.
    """

    def __init__(self, network: Network, where: Place, config: ParallelConfig) -> None:
        self.network = network.to(where.device)
        self.working = self.network
        if where.mesh is None and where.dtype is not torch.float32:
            self.working = copy.deepcopy(network).to(where.dtype)
            _share_statistics(self.working, self.network)
        self._statistics_before: list[Tensor] = []
        if config.checkpoint_activations:
            _checkpoint_blocks(self.working)
        if config.compile:
            for block in self.working.backbone.blocks:
                block.compile()
        if where.mesh is not None:
            _shard(self.working, where.mesh, where.dtype)

    @torch.no_grad()
    def refresh(self) -> None:
        """Give the working copy the parameters of the network, and note the statistics as they are."""
        self._statistics_before = [buffer.clone() for buffer in self.network.buffers()]
        if self.working is not self.network:
            torch._foreach_copy_(list(self.working.parameters()), list(self.network.parameters()))

    @torch.no_grad()
    def settle_statistics(self, group: Group, *, is_finite: bool) -> None:
        """Let all processes have the same statistics of batch norms: the mean, or those before this step.

        Args:
            group: of the processes; every one must call.
            is_finite: whether the step is taken.
        """
        buffers = list(self.network.buffers())
        if not buffers or (is_finite and group.size == 1):
            return
        found = self._statistics_before
        if is_finite:
            mean = group.sum(torch.cat([buffer.flatten() for buffer in buffers])) / group.size
            found = list(mean.split([buffer.numel() for buffer in buffers]))
        for buffer, statistics in zip(buffers, found, strict=True):
            buffer.copy_(statistics.view_as(buffer))

    @torch.no_grad()
    def take_gradients(self) -> None:
        """Add the gradients of the working copy to those of the network, as fp32."""
        if self.working is not self.network:
            for own, other in zip(self.network.parameters(), self.working.parameters(), strict=True):
                if other.grad is not None:
                    made = other.grad.float()
                    own.grad = made if own.grad is None else own.grad.add_(made)
                other.grad = None


def _shard(network: Network, mesh: DeviceMesh, dtype: torch.dtype) -> None:
    policy = MixedPrecisionPolicy(
        param_dtype=None if dtype is torch.float32 else dtype, reduce_dtype=torch.float32
    )
    for block in network.backbone.blocks:
        fully_shard(block, mesh=mesh, mp_policy=policy)
    # What comes last in a forward is kept whole for the backward. A teacher has none: it would stay whole,
    # and neither its mean nor a checkpoint would reach its shards.
    is_frozen = not any(parameter.requires_grad for parameter in network.parameters())
    for part in network.children():
        fully_shard(part, mesh=mesh, mp_policy=policy, reshard_after_forward=True if is_frozen else None)


def _share_statistics(working: nn.Module, network: nn.Module) -> None:
    """Give a copy in another precision the very statistics of the network."""
    for copied, module in zip(working.modules(), network.modules(), strict=True):
        for name, buffer in module.named_buffers(recurse=False):
            setattr(copied, name, buffer)


def _checkpoint_blocks(network: Network) -> None:
    for block in network.backbone.blocks:
        inner = block.forward
        # What is computed again is not counted again.
        contexts = partial(_first_and_again, block)
        block.forward = lambda groups, inner=inner, contexts=contexts: checkpoint(
            inner, groups, use_reentrant=False, context_fn=contexts
        )


def _first_and_again(block: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), uncounted(block)


def full(tensor: Tensor) -> Tensor:
    """A tensor whole, on the CPU. Every rank must ask."""
    whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return whole.detach().cpu()


@torch.no_grad()
def assign(target: Tensor, whole: Tensor) -> None:
    """Set a tensor, sharded or not, from a whole one that every rank has."""
    if isinstance(target, DTensor):
        part = distribute_tensor(
            whole.to(target.device), target.device_mesh, target.placements, src_data_rank=None
        )
        target.to_local().copy_(part.to_local())
    else:
        target.copy_(whole)


def keep_freed_memory() -> None:
    """Let glibc keep what it frees, instead of giving it back and having it zeroed again at every step.

    A step frees and takes buffers of hundreds of megabytes; page faults cost up to a third of it on a CPU.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        trim_threshold, mmap_max = -1, -4  # malloc.h
        libc.mallopt(mmap_max, 0)
        libc.mallopt(trim_threshold, 2**31 - 1)


def _stop_with_launcher() -> None:
    """Save and stop when torchrun ends: one that is killed would leave its processes training on."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        end_with_parent(by=signal.SIGTERM, parent=named_parent())
