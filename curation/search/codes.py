"""Vectors in a cheap arithmetic, and how far the products of such codes may lie from those of the vectors.

A vector x is replaced by a code x' = scale · values in a cheaper arithmetic. For any two rows

    <a, b> - <a', b'> = <a - a', b> + <a', b - b'>

so with the Cauchy–Schwarz inequality, and γ for what the product itself may lose,

    |<a, b> - computed| <= |a - a'| |b| + |a'| |b - b'| + γ |a'| |b'|                          (1)

The norms and residual norms are computed for each row from the very codes that are multiplied, and rounded
up, so the bound follows the data: about 0.003 for unit vectors in bf16 and 0.016 in int8 (384 dimensions).
Of long vectors a code may hold the leading numbers alone. What it leaves out, the tails, adds <ta, tb> to a
score, which is at most |ta| |tb|: one more term of the bound, exact in that it needs no further residual.
γ is 0 for int8 (sums are whole numbers below 2^31), and 2^-23 d otherwise: products of two bf16 or fp16
numbers are exact in fp32, and d additions lose at most 2^-24 each, or 2^-23 where hardware truncates. A GPU
gets twice that: its matrix units cut several terms to the exponent of the largest before they add them
(Fasi et al. 2021, "Numerical behavior of NVIDIA tensor cores"). In fp16 the codes of fp16 vectors are the
vectors themselves.

Codes are whole numbers, or numbers rounded once, of what fp32 multiplies by its own rules: the same on every
machine.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from numpy import ndarray

from curation.search.backend import Device
from curation.search.product import VALUES, ProposeDtype, held_in

# In fp32 they stay in a core's cache, and in memory that the allocator has at hand: fresh pages cost as much
# as the work on them. A GPU is asked less often.
_CHUNK_ROWS = {"cpu": 256, "cuda": 1 << 16}
_LEAST = 2.0**-24  # the smallest fp16 number: a row of zeros needs a scale too
_SLACK = 1e-9  # covers the fp64 rounding of bounds and thresholds
# What a product in 16 bits, summed in fp32, is rounded by: as a share, and near zero at most.
_ROUNDING, _SMALLEST = {torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}, 2.0**-25


@dataclass(frozen=True)
class Codes:
    """Rows in a cheap arithmetic, with what (1) needs to know of each row."""

    values: torch.Tensor  # (n, d or 2) int8, bf16, fp16 or fp32, on the device that multiplies
    scale: np.ndarray  # Float64 "n": code = scale * values
    norm: np.ndarray  # Float64 "n": |x|, of the numbers that the code holds
    residual: np.ndarray  # |x - x'|, of these
    tail: np.ndarray  # norm of the numbers that it leaves out; 0 where it holds all

    def __getitem__(self, rows: "slice | Int64[ndarray, ' k']") -> "Codes":
        """Return a range of the rows, without a copy; or some of them, in any order."""
        if isinstance(rows, slice):
            values = self.values[rows]
        else:  # twice as fast as an index
            values = self.values.index_select(0, torch.from_numpy(rows).to(self.values.device))
        return Codes(values, self.scale[rows], self.norm[rows], self.residual[rows], self.tail[rows])

    def __len__(self) -> int:
        return len(self.norm)


def encode(
    vectors: Float[ndarray, "n d"],
    *,
    dtype: ProposeDtype,
    one_scale: bool = False,
    device: Device = "cpu",
    num_leading: int | None = None,
) -> Codes:
    """Put rows into a cheap arithmetic.

    Args:
        vectors: fp16 or fp32 (n, d).
        dtype: on a CPU int8 (fastest, needs VNNI), bf16 (wants AVX512-BF16 or AMX; without, it is held in
            fp32), or fp32; on a GPU fp16 or bf16.
        one_scale: one int8 scale for all rows, so that products with different rows compare; otherwise one a
            row, which keeps those of one row comparable.
        device: where the values go.
        num_leading: of a vector's numbers, those that the code holds; None: all.
    """
    dim = vectors.shape[1] if num_leading is None else num_leading
    # At least two dimensions: torch 2.14's int8 product of width 1 is wrong.
    values = torch.zeros((len(vectors), max(dim, 2)), dtype=held_in(dtype, device), device=device)
    inverse, norm, lost = torch.ones((3, len(vectors)), device=device)  # 1 / scale, |x|, |x - x'| / scale
    if dtype == "int8" and one_scale:
        inverse.fill_(127 / _largest(vectors[:, :dim]).clamp(min=_LEAST))
    for rows, exact in _wide(vectors[:, :dim], device):
        torch.linalg.vector_norm(exact, dim=1, out=norm[rows])
        if dtype == "int8":
            if not one_scale:
                torch.div(127, exact.abs().amax(dim=1).clamp_(min=_LEAST), out=inverse[rows])
            code = exact.mul_(inverse[rows, None]).round()
        else:
            code = exact.to(VALUES[dtype])
        values[rows, :dim] = code
        torch.linalg.vector_norm(exact.sub_(code), dim=1, out=lost[rows])
    scale = 1 / inverse.cpu().double().numpy()
    # What is rounded to a whole number, at most 127, was rounded to fp32 before: by 2^-18.
    residual = (_rounded_up(lost, dim) + (2.0**-17 * dim**0.5 if dtype == "int8" else 0)) * scale
    tail = tail_norms(vectors, dim) if dim < vectors.shape[1] else np.zeros(len(vectors))
    return Codes(values, scale, _rounded_up(norm, dim) + _SLACK, residual + _SLACK, tail)


def tail_norms(vectors: Float[ndarray, "n d"], num_leading: int) -> Float64[ndarray, " n"]:
    """The norm of what is left of each vector without its leading numbers, rounded up."""
    norms = torch.zeros(len(vectors))
    for rows, tails in _wide(vectors[:, num_leading:]):
        torch.linalg.vector_norm(tails, dim=1, out=norms[rows])
    return _rounded_up(norms, vectors.shape[1] - num_leading)


def error_bound(rows: Codes, columns: Codes, *, held: torch.dtype = torch.float32) -> Float64[ndarray, " n"]:
    """Bound, for every row, the error of its product with any of the columns: (1) and the tails, columns at
    their worst.

    Args:
        rows: of one side.
        columns: of the other.
        held: what products are rounded to before they are compared with one another. With a threshold that
            `round_down` gives they compare as they did before.
    """
    summed = 2.0**-22 if rows.values.is_cuda else 2.0**-23
    loss = 0.0 if rows.values.dtype == torch.int8 else summed * rows.values.shape[1]
    least = 0.0
    if rounding := _ROUNDING.get(held):
        loss, least = loss + rounding * (1 + loss), _SMALLEST
    norm, residual, tail = (of.max(initial=0) for of in (columns.norm, columns.residual, columns.tail))
    longest = (columns.norm + columns.residual).max(initial=0)
    codes = rows.norm + rows.residual  # |x'| is at most that
    return np.asarray(rows.residual * norm + codes * (residual + loss * longest) + rows.tail * tail + least)


def _wide(vectors: Float[ndarray, "n d"], device: Device = "cpu") -> Iterator[tuple[slice, torch.Tensor]]:
    """Chunks of the rows, copied into fp32."""
    for start in range(0, len(vectors), _CHUNK_ROWS[device]):
        rows = slice(start, start + _CHUNK_ROWS[device])
        # Copied: torch takes no read-only (memory-mapped) array without a warning.
        chunk = torch.from_numpy(np.array(vectors[rows])).to(device)
        yield rows, chunk.float() if chunk.dtype != torch.float32 else chunk


def _largest(vectors: Float[ndarray, "n d"]) -> torch.Tensor:
    largest = [chunk.abs().amax() for _, chunk in _wide(vectors)]
    return torch.stack(largest).amax() if largest else torch.zeros(())


def _rounded_up(norms: torch.Tensor, dim: int) -> Float64[ndarray, " n"]:
    """Norms computed in fp32: dim + 2 roundings at most, in whatever order squares are added."""
    return np.asarray(norms.cpu().double().numpy() * (1 + (dim + 2) * 2.0**-24))
