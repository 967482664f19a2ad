"""The official names of a backbone's tensors, which are ours, out of whatever training wraps them in."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from curation.errors import ModelError

State = Mapping[str, Tensor]

# Of several, the first one that is there: the teacher is the model that a training run is for.
WRAPPERS = ("teacher", "model", "state_dict", "student")
SIDES = ("teacher.", "student.")
BACKBONE = "backbone."
# Levels that DistributedDataParallel, FSDP, torch.compile and activation checkpointing put into a name.
WRAPPED = {"module", "_fsdp_wrapped_module", "_orig_mod", "_checkpoint_wrapped_module"}
# Projection heads and classifiers, which are no part of a backbone.
PROJECTIONS = ("dino_head.", "ibot_head.")
HEADS = (*PROJECTIONS, "head.", "classifier.")
# `blocks.CHUNK.BLOCK.…`: a chunk is padded in front with modules that have no tensors, so that the second
# number already counts from the first block of the model.
CHUNKED_BLOCK = re.compile(r"blocks\.\d+\.(\d+)\.")


def flatten(content: Mapping[Any, Any]) -> dict[str, Tensor]:
    """Tensors by name out of what a file holds, without the levels that wrappers add.

    Args:
        content: tensors by name, or such a mapping under "teacher", "model", "state_dict" or "student".

    Raises:
        ModelError: there is something else than tensors, or two tensors come to have one name.
    """
    inner = next((content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping)), None)
    if inner is not None:
        return flatten(inner)
    others = [
        str(name)
        for name, value in content.items()
        if not isinstance(name, str) or not isinstance(value, Tensor)
    ]
    if others:
        raise ModelError(
            "The file holds something else than tensors",
            got=", ".join(others[:10]),
            expected=f"tensors by name, or these under one of {', '.join(WRAPPERS)}",
            remedy="Save the model's state_dict alone",
        )
    return renamed(content, lambda name: ".".join(part for part in name.split(".") if part not in WRAPPED))


def backbone_of(flat: State) -> dict[str, Tensor]:
    """The backbone alone, with plain block numbers.

    Of names that start with `teacher.` or `student.` the teacher's are taken, and of these, where there are
    any, the ones that start with `backbone.`; heads are left out.

    Args:
        flat: tensors by name, as `flatten` gives them.

    Raises:
        ModelError: two tensors come to have one name.
    """
    side = next((side for side in SIDES if any(name.startswith(side) for name in flat)), "")
    of_side = _below(flat, side)
    of_backbone = _below(of_side, BACKBONE if is_training_dump(flat) else "")
    kept = {name: tensor for name, tensor in of_backbone.items() if not name.startswith(HEADS)}
    return renamed(kept, lambda name: CHUNKED_BLOCK.sub(r"blocks.\1.", name, count=1))


def heads_of(flat: State) -> dict[str, Tensor]:
    """The projection heads that a training run wrote beside its backbone, of the side that is taken of that.

    Args:
        flat: tensors by name, as `flatten` gives them.
    """
    side = next((side for side in SIDES if any(name.startswith(side) for name in flat)), "")
    return {n: tensor for n, tensor in _below(flat, side).items() if n.startswith(PROJECTIONS)}


def is_training_dump(flat: State) -> bool:
    """Whether a training run wrote these: a backbone under a name of its own, beside heads."""
    return any(name.startswith((BACKBONE, *(side + BACKBONE for side in SIDES))) for name in flat)


def renamed(state: State, rename: Callable[[str], str]) -> dict[str, Tensor]:
    """The same tensors under other names.

    Raises:
        ModelError: two tensors come to have one name, of which one would be lost.
    """
    made: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if rename(name) in made:
            raise ModelError(
                f"Two tensors of the file are both {rename(name)}",
                got=name,
                expected="each tensor once",
                remedy="Save one model to a file",
            )
        made[rename(name)] = tensor
    return made


def _below(state: State, prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
