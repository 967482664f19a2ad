"""The arithmetic that tests force: emulations are exact, and processes that a test starts are forced too."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from arithmetic import ARITHMETICS, VARIABLE, exact_bf16, exact_int8, force, force_whole_run, forced

from curation.search import product

SCRIPT = """
import sys
assert "torch" not in sys.modules, "processes that multiply nothing import nothing for it"
from curation.search.exact import fastest_dtype
print(fastest_dtype())
"""


def test_int8_is_emulated_without_saturation() -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.integers(-127, 128, (n, 700)).astype(np.int8) for n in (5, 7))
    a[0], b[0] = 127, -127  # two such products are beyond int16
    out = torch.empty((5, 7), dtype=torch.int32)
    found = exact_int8(torch.from_numpy(a), torch.from_numpy(b).T, out=out)
    assert found.data_ptr() == out.data_ptr()
    np.testing.assert_array_equal(out.numpy(), a.astype(np.int64) @ b.astype(np.int64).T)


def test_bf16_is_emulated_with_one_rounding() -> None:
    rng = np.random.default_rng(1)
    a, b = (torch.from_numpy(rng.standard_normal((n, 700))).bfloat16() for n in (5, 7))
    exact = a.double() @ b.double().T
    multiply, out = exact_bf16(torch.mm), torch.empty((5, 7), dtype=torch.bfloat16)
    assert torch.equal(multiply(a, b.T, out=out), exact.bfloat16())
    assert torch.equal(out, multiply(a, b.T))
    assert torch.equal(multiply(a.float(), b.float().T), torch.mm(a.float(), b.float().T))


@pytest.mark.parametrize("arithmetic", ARITHMETICS)
def test_emulations_stand_in_where_the_cpu_has_nothing(
    arithmetic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With torch's products taken away, as far as this CPU is said not to have them."""
    monkeypatch.setattr("curation.cpu.has_int8", lambda: False)
    monkeypatch.setattr("curation.cpu.has_bf16", lambda: False)
    rows = torch.ones((3, 4))
    with forced(arithmetic):
        assert (torch._int_mm is exact_int8) == (arithmetic == "int8")
        codes = rows.to(product.held_in(arithmetic))
        out = product.buffer_for(arithmetic, num_products=9)
        assert product.multiply(codes, codes, out=out).tolist() == [[4] * 3] * 3
    assert torch._int_mm is not exact_int8


@pytest.mark.parametrize("arithmetic", ARITHMETICS)
def test_processes_are_forced_too(arithmetic: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = product.has_int8, product.has_bf16, torch.mm, torch._int_mm
    monkeypatch.setenv(VARIABLE, arithmetic)
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
    try:
        force_whole_run()
        assert product.fastest_dtype() == arithmetic
        done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
        assert done.stdout.split() == [arithmetic]
    finally:
        product.has_int8, product.has_bf16, torch.mm, torch._int_mm = before


def test_another_word_is_refused() -> None:
    with pytest.raises(ValueError, match="'fp8'; expected nothing or one of int8, bf16, fp32"):
        force("fp8")
