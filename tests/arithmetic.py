"""The arithmetic in which products propose, forced: for a test, for a whole run, and in processes it starts.

What this CPU has no instruction for is multiplied exactly by an emulation, so that every arithmetic is tested
on any machine. The product knows nothing of this: it is told that the CPU has what it has not.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ARITHMETICS = ("int8", "bf16", "fp32")
VARIABLE = "LVD_TEST_ARITHMETIC"
_FORCED = Path(__file__).resolve().parent / "forced"


def force(arithmetic: str, *, set_attribute: Callable[[Any, str, Any], None] = setattr) -> None:
    """Have this process choose `arithmetic` for products."""
    if arithmetic not in ARITHMETICS:
        raise ValueError(f"{VARIABLE} is {arithmetic!r}; expected nothing or one of {', '.join(ARITHMETICS)}")
    import torch

    from curation import cpu
    from curation.search import product

    set_attribute(product, "has_int8", lambda: arithmetic == "int8")
    set_attribute(product, "has_bf16", lambda: arithmetic == "bf16")
    if arithmetic == "int8" and not cpu.has_int8():
        set_attribute(torch, "_int_mm", exact_int8)
    if arithmetic == "bf16" and not cpu.has_bf16():
        set_attribute(torch, "mm", exact_bf16(torch.mm))


@contextmanager
def forced(arithmetic: str | None) -> Iterator[None]:
    """`force` for a while; what is none of `ARITHMETICS` leaves the machine's own."""
    import pytest  # which what only `force` is wanted for has no need of

    with pytest.MonkeyPatch.context() as patch:
        if arithmetic in ARITHMETICS:
            force(arithmetic, set_attribute=patch.setattr)
        yield


def force_whole_run() -> None:
    """Force what the environment asks for, here and in every process that a test starts."""
    if not (arithmetic := os.environ.get(VARIABLE)):
        return
    force(arithmetic)
    path = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if str(_FORCED) not in path:
        os.environ["PYTHONPATH"] = os.pathsep.join([str(_FORCED), *filter(None, path)])


def exact_int8(rows: Any, columns: Any, *, out: Any) -> Any:
    """`torch._int_mm` where the CPU's would saturate: fp64 adds whole numbers without rounding."""
    return out.copy_(rows.double() @ columns.double())


def exact_bf16(others: Callable[..., Any]) -> Callable[..., Any]:
    """`torch.mm` of bf16 rounded once, from sums in fp64; `others` multiplies the rest."""

    def multiply(rows: Any, columns: Any, *, out: Any = None) -> Any:
        if str(rows.dtype) != "torch.bfloat16":
            return others(rows, columns, out=out)
        product = (rows.double() @ columns.double()).to(rows.dtype)
        return product if out is None else out.copy_(product)

    return multiply
