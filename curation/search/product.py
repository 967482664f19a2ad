"""Low-precision products that propose pairs, and the exact score that decides them.

A vector x is replaced by a code x' = scale · values in a cheaper arithmetic. For any two rows

    <a, b> - <a', b'> = <a - a', b> + <a', b - b'>

so with the Cauchy–Schwarz inequality, and γ for what the product itself may lose,

    |<a, b> - computed| <= |a - a'| |b| + |a'| |b - b'| + γ |a'| |b'|                          (1)

The norms and residual norms are computed for each row in fp64 from the very codes that are multiplied, so
the bound follows the data: about 0.003 for unit vectors in bf16 and 0.016 in int8 (384 dimensions).
Of long vectors a code may hold the leading numbers alone. What it leaves out, the tails, adds <ta, tb> to a
score, which is at most |ta| |tb|: one more term of the bound, exact in that it needs no further residual.
γ is 0 for int8 (sums are whole numbers below 2^31), and 2^-23 d otherwise: products of two bf16 or fp16
numbers are exact in fp32, and d additions lose at most 2^-24 each, or 2^-23 where hardware truncates. A GPU
gets twice that: its matrix units cut several terms to the exponent of the largest before they add them
(Fasi et al. 2021, "Numerical behavior of NVIDIA tensor cores"). In fp16 the codes are the vectors themselves.

The score of a pair is the inner product of the stored fp16 vectors in fp64, and it is exact: products of
fp16 numbers are whole multiples of 2^-48, and with |a| |b| < 32 every partial sum is a multiple of 2^-48
below 2^5, which 53 bits hold. So no order of summation, library or block size can change it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Float16, Float64, Int64
from numpy import ndarray

from curation.cpu import has_bf16, has_int8, keeps_fp32
from curation.errors import ConfigError, IntegrityError
from curation.search.device import Device

ProposeDtype = Literal["int8", "bf16", "fp16", "fp32"]

_VALUES = {"int8": torch.int8, "bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
_MAX_NORM = 4.0  # |a| |b| < 32 keeps scores exact; unit vectors are far below
# What a product in 16 bits, summed in fp32, is rounded by, as a share.
ROUNDING = {torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
_SLACK = 1e-9  # covers the fp64 rounding of norms, bounds and thresholds
_CHUNK_ROWS = 4096
_SCORE_CHUNK_PAIRS = 16_384  # 25 MB of fp32 a side at 384 dimensions: stays near the cache


@dataclass(frozen=True)
class Codes:
    """Rows in a cheap arithmetic, with what (1) needs to know of each row."""

    values: torch.Tensor  # (n, d or 2) int8, bf16, fp16 or fp32, on the device that multiplies
    scale: np.ndarray  # Float64 "n": code = scale * values
    norm: np.ndarray  # Float64 "n": |x|, rounded up
    code_norm: np.ndarray  # |x'|
    residual: np.ndarray  # |x - x'|, of the numbers that the code holds
    tail: np.ndarray  # norm of the numbers that it leaves out; 0 where it holds all

    def __getitem__(self, rows: slice) -> "Codes":
        """Return a range of the rows, without a copy."""
        return Codes(
            self.values[rows],
            self.scale[rows],
            self.norm[rows],
            self.code_norm[rows],
            self.residual[rows],
            self.tail[rows],
        )

    def take(self, places: Int64[ndarray, " k"]) -> "Codes":
        """Return some of the rows, in any order."""
        return Codes(
            # twice as fast as an index
            self.values.index_select(0, torch.from_numpy(places).to(self.values.device)),
            self.scale[places],
            self.norm[places],
            self.code_norm[places],
            self.residual[places],
            self.tail[places],
        )

    def __len__(self) -> int:
        return len(self.norm)


def fastest_dtype(device: Device = "cpu") -> ProposeDtype:
    """Choose the arithmetic for this machine: speed alone, since results do not depend on it.

    On a GPU fp16 is as fast as bf16, and exact until it is summed. A CPU that lacks int8 and bf16 takes fp32.
    """
    if device == "cuda":
        return "fp16"
    if has_int8():
        return "int8"
    return "bf16" if has_bf16() else "fp32"


@contextmanager
def sums_in_fp32() -> Iterator[None]:
    """Keep a GPU from adding the pieces of a 16-bit product in 16 bits, which (1) knows nothing of."""
    matmul = torch.backends.cuda.matmul
    before = matmul.allow_fp16_reduced_precision_reduction, matmul.allow_bf16_reduced_precision_reduction
    matmul.allow_fp16_reduced_precision_reduction = matmul.allow_bf16_reduced_precision_reduction = False
    try:
        yield
    finally:
        matmul.allow_fp16_reduced_precision_reduction = before[0]
        matmul.allow_bf16_reduced_precision_reduction = before[1]


def nonzero_rows(vectors: Float16[ndarray, "n d"]) -> Bool[ndarray, " n"]:
    """Tell which rows hold a vector (a slot of zeros is a row that has none).

    Raises:
        IntegrityError: a vector is not finite, or too long for scores to be exact.
    """
    has_vector = np.empty(len(vectors), bool)
    # Chunks are copied here and below: torch takes no read-only (memory-mapped) array without a warning.
    for start in range(0, len(vectors), _CHUNK_ROWS):
        chunk = torch.from_numpy(np.array(vectors[start : start + _CHUNK_ROWS]))
        norms = torch.linalg.vector_norm(chunk.float(), dim=1).numpy()
        bad = ~(norms <= _MAX_NORM)  # also true for NaN
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise IntegrityError(
                "A descriptor or embedding is not a unit vector",
                got=f"norm {norms[row]} in row {start + row}",
                expected="norm 1 (or 0 where an image has no vector)",
                remedy="Normalise the vectors before they are stored",
            )
        has_vector[start : start + len(chunk)] = norms > 0
    return has_vector


def encode(
    vectors: Float16[ndarray, "n d"],
    *,
    dtype: ProposeDtype,
    one_scale: bool = False,
    device: Device = "cpu",
    num_leading: int | None = None,
) -> Codes:
    """Put rows into a cheap arithmetic.

    Args:
        vectors: fp16 (n, d).
        dtype: on a CPU int8 (fastest, needs VNNI), bf16 (wants AVX512-BF16 or AMX; without, it is held in
            fp32), or fp32; on a GPU fp16 or bf16.
        one_scale: one int8 scale for all rows, so that maxima over rows compare; otherwise one a row.
        device: where the values go.
        num_leading: of a vector's numbers, those that the code holds; None: all.

    Returns:
        Codes of the n rows.
    """
    every, vectors = vectors, vectors[:, :num_leading]
    num_rows, dim = vectors.shape
    # At least two dimensions: torch 2.14's int8 product of width 1 is wrong.
    values = torch.zeros((num_rows, max(dim, 2)), dtype=held_in(dtype, device), device=device)
    scale, norms = np.ones(num_rows), np.zeros((4, num_rows))
    if dtype == "int8":
        scale = _int8_scales(vectors, one_scale=one_scale)
    for start in range(0, num_rows, _CHUNK_ROWS):
        rows = slice(start, start + _CHUNK_ROWS)
        exact = torch.from_numpy(np.array(vectors[rows])).to(device).double()
        scales = torch.from_numpy(scale[rows, None]).to(device)
        cheap = (exact / scales).round_().clamp_(-127, 127) if dtype == "int8" else exact
        values[rows, :dim] = cheap.to(_VALUES[dtype]).to(values.dtype)
        code = values[rows, :dim].double().mul_(scales)
        norms[0, rows] = torch.linalg.vector_norm(exact, dim=1).cpu().numpy()
        norms[1, rows] = torch.linalg.vector_norm(code, dim=1).cpu().numpy()
        norms[2, rows] = torch.linalg.vector_norm(exact.sub_(code), dim=1).cpu().numpy()
    if dim < every.shape[1]:
        norms[3] = tail_norms(every, dim)
    return Codes(values, scale, *(norms * (1 + _SLACK) + _SLACK))


def tail_norms(vectors: Float[ndarray, "n d"], num_leading: int) -> Float64[ndarray, " n"]:
    """The norm of what is left of each vector without its leading numbers."""
    norms = np.empty(len(vectors))
    for start in range(0, len(vectors), _CHUNK_ROWS):
        rows = slice(start, start + _CHUNK_ROWS)
        tails = torch.from_numpy(np.array(vectors[rows, num_leading:])).double()
        norms[rows] = torch.linalg.vector_norm(tails, dim=1).numpy()
    return norms


def _int8_scales(vectors: np.ndarray, *, one_scale: bool) -> np.ndarray:
    largest = torch.empty(len(vectors), dtype=torch.float64)
    for start in range(0, len(vectors), _CHUNK_ROWS):
        rows = slice(start, start + _CHUNK_ROWS)
        largest[rows] = torch.from_numpy(np.array(vectors[rows])).float().abs().amax(dim=1)
    scale = largest.numpy()
    if one_scale:
        scale = np.full(len(scale), scale.max(initial=0))
    return np.where(scale > 0, scale / 127, 1.0)


def error_bound(rows: Codes, columns: Codes) -> Float64[ndarray, " n"]:
    """Bound, for every row, the error of its product with any of the columns: (1) and the tails, columns at
    their worst.
    """
    rounding = 2.0**-22 if rows.values.is_cuda else 2.0**-23
    loss = 0.0 if rows.values.dtype == torch.int8 else rounding * rows.values.shape[1]
    norm, code_norm = columns.norm.max(initial=0), columns.code_norm.max(initial=0)
    residual = columns.residual.max(initial=0)
    tails = rows.tail * columns.tail.max(initial=0)
    return rows.residual * norm + rows.code_norm * residual + loss * rows.code_norm * code_norm + tails


def multiply(rows: torch.Tensor, columns: torch.Tensor, *, out: torch.Tensor) -> torch.Tensor:
    """Multiply the values of two sets of codes; either may be empty, and so is the product then.

    Args:
        rows: values (n, d).
        columns: values (m, d) of the same dtype.
        out: a flat buffer of `buffer_for` with room for n · m; reused, so that pages are faulted in once.

    Returns:
        (n, m), a view of `out`: int32 for int8; bf16 or fp16, rounded from an fp32 sum; or fp32.
    """
    shape = (len(rows), len(columns))
    product = out[: shape[0] * shape[1]].view(shape)
    if not product.numel():
        return product
    match rows.dtype:
        case torch.int8:
            torch._int_mm(rows, columns.T, out=product)
        case torch.bfloat16 | torch.float16:
            torch.mm(rows, columns.T, out=product)
        case _ if keeps_fp32("matmul"):
            torch.mm(rows, columns.T, out=product)
        case _:  # not always: NumPy's threads, waiting for more, slow down what torch does next fivefold
            np.matmul(rows.numpy(), columns.numpy().T, out=product.numpy())
    return product


def multiply_fp32(rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """`multiply` of fp32 values into pages of its own: many rows, and columns that are used again and again.

    A 1×1 convolution of at least 16 images is the same product by oneDNN: 215 GFLOP/s a core on AMD, where
    torch.mm (MKL) has 95. A convolution takes no image without rows, nor does it give any without columns.
    """
    num_rows, (width, dim) = len(rows), columns.shape
    if not (num_rows and width and keeps_fp32("conv")):
        return torch.from_numpy(rows.numpy() @ columns.numpy().T)
    padded = torch.nn.functional.pad(rows, (0, 0, 0, -num_rows % 16))
    images = padded.view(16, -1, 1, dim).permute(0, 3, 1, 2)
    products = torch.nn.functional.conv2d(images, columns.view(width, dim, 1, 1))
    return products.permute(0, 2, 3, 1).reshape(-1, width)[:num_rows]


def buffer_for(dtype: ProposeDtype, *, num_products: int, device: Device = "cpu") -> torch.Tensor:
    """Make the flat buffer that `multiply` writes to.

    Raises:
        ConfigError: int8 on a CPU whose int8 products may saturate; int8 or fp32 on a GPU.
    """
    if device == "cuda" and dtype not in ("fp16", "bf16"):
        raise ConfigError(f"{dtype} proposes on CPUs alone", got="device cuda", expected="fp16 or bf16")
    if dtype == "int8" and not has_int8():
        raise ConfigError(
            "This CPU's int8 products may saturate", got="a CPU without VNNI", expected="bf16 or fp32"
        )
    products = torch.int32 if dtype == "int8" else held_in(dtype, device)
    return torch.empty(num_products, dtype=products, device=device)


def held_in(dtype: ProposeDtype, device: Device = "cpu") -> torch.dtype:
    """What codes are multiplied in: bf16 in fp32 where the CPU lacks it, at twice the speed of oneDNN's."""
    return torch.float32 if dtype == "bf16" and device == "cpu" and not has_bf16() else _VALUES[dtype]


def round_down(threshold: Float64[ndarray, " n"], *, dtype: torch.dtype) -> torch.Tensor:
    """Round to `dtype` towards minus infinity, so that x >= threshold implies stored(x) >= rounded."""
    exact = torch.from_numpy(threshold)
    if dtype == torch.int32:
        return exact.floor().clamp_(-(2.0**31), 2.0**31 - 1).to(dtype)
    stored = exact.to(dtype)
    below = torch.nextafter(stored, torch.full_like(stored, -torch.inf))
    return torch.where(stored.double() > exact, below, stored)


def exact_scores(
    a: Float16[ndarray, "n d"],
    b: Float16[ndarray, "m d"],
    *,
    rows: Int64[ndarray, " e"],
    columns: Int64[ndarray, " e"],
) -> Float64[ndarray, " e"]:
    """Score pairs: the fp64 inner product of the stored fp16 vectors, exact for norms up to 4.

    Args:
        a: fp16 (n, d).
        b: fp16 (m, d).
        rows: int64 (e,), indices into `a`.
        columns: int64 (e,), indices into `b`.

    Returns:
        float64 (e,).
    """
    scores = np.empty(len(rows))
    for start in range(0, len(rows), _SCORE_CHUNK_PAIRS):
        pairs = slice(start, start + _SCORE_CHUNK_PAIRS)
        left = torch.from_numpy(a[rows[pairs]]).float()
        # The product of two fp16 numbers is exact in fp32; only the sum needs fp64.
        left.mul_(torch.from_numpy(b[columns[pairs]]).float())
        scores[pairs] = left.sum(dim=1, dtype=torch.float64).numpy()
    return scores
