"""Models whose tensors have no memory: what nobody fills cannot be computed with."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


@contextmanager
def hollow() -> Iterator[None]:
    """Modules made within lie on the meta device, and nothing is drawn for them."""
    with torch.device("meta"), _NothingDrawn():
        yield


class _NothingDrawn(TorchFunctionMode):
    """Leaves out what `nn.init` draws: it would fill nothing, and import torch's compiler (5 s)."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":  # slots of C types have no module
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)
