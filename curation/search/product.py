"""Low-precision products that propose pairs, and the exact score that decides them.

What proposes multiplies codes, and knows a bound on what they lose (`curation.search.codes`).

The score of a pair is the inner product of the stored fp16 vectors in fp64, and it is exact: products of
fp16 numbers are whole multiples of 2^-48, and with |a| |b| < 32 every partial sum is a multiple of 2^-48
below 2^5, which 53 bits hold. So no order of summation, library or block size can change it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float16, Float32, Float64, Int64
from numpy import ndarray

from curation.cpu import has_bf16, has_int8, keeps_fp32
from curation.errors import ConfigError, IntegrityError
from curation.search.backend import Device
from curation.search.installed import load_faiss

ProposeDtype = Literal["int8", "bf16", "fp16", "fp32"]

VALUES = {"int8": torch.int8, "bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
_MAX_NORM = 4.0  # |a| |b| < 32 keeps scores exact; unit vectors are far below
_CHUNK_ROWS = 4096
_SCORE_CHUNK_PAIRS = 16_384  # 25 MB of fp32 a side at 384 dimensions: stays near the cache


def fastest_dtype(device: Device = "cpu") -> ProposeDtype:
    """Choose the arithmetic for this machine: speed alone, since results do not depend on it.

    On a GPU fp16 is as fast as bf16, and exact until it is summed. A CPU that lacks int8 and bf16 takes fp32.
    """
    if device == "cuda":
        return "fp16"
    if has_int8():
        return "int8"
    return "bf16" if has_bf16() else "fp32"


def require_gpu(to: str, *, instead: str) -> None:
    """See that there is a GPU to search, join or cluster on.

    Raises:
        ConfigError: torch sees none.
    """
    if not torch.cuda.is_available():
        expected = f"{instead} where torch sees no CUDA device"
        raise ConfigError(f"No GPU to {to} on", got="cuda", expected=expected)


@contextmanager
def sums_in_fp32() -> Iterator[None]:
    """Keep a GPU from adding the pieces of a 16-bit product in 16 bits, which no bound on it knows of."""
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
    # Chunks are copied: torch takes no read-only (memory-mapped) array without a warning.
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
    return torch.float32 if dtype == "bf16" and device == "cpu" and not has_bf16() else VALUES[dtype]


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


def pair_products(
    a: Float32[ndarray, "n d"],
    b: Float32[ndarray, "m d"],
    *,
    rows: Int64[ndarray, " e"],
    columns: Int64[ndarray, " e"],
) -> Float32[ndarray, " e"]:
    """Multiply pairs in fp32, without copies of their rows: the step between proposals and the exact score.

    FAISS reads each row where it lies: 0.1 to 0.3 µs a pair of 384 dimensions on one core, where to gather
    the rows first costs 0.9 to 1.3 µs in NumPy and more in torch. Its threads are `set_search_threads`'s.

    Args:
        a: fp32 (n, d).
        b: fp32 (m, d).
        rows: int64 (e,), indices into `a`.
        columns: int64 (e,), indices into `b`.

    Returns:
        fp32 (e,); each is off by at most d·2^-24·|a|·|b|, in whatever order it was summed.
    """
    faiss = load_faiss()
    a, b = np.ascontiguousarray(a), np.ascontiguousarray(b)
    rows, columns = np.ascontiguousarray(rows, np.int64), np.ascontiguousarray(columns, np.int64)
    products = np.empty(len(rows), np.float32)
    faiss.pairwise_indexed_inner_product(
        a.shape[1],
        len(rows),
        faiss.swig_ptr(a),
        faiss.swig_ptr(rows),
        faiss.swig_ptr(b),
        faiss.swig_ptr(columns),
        faiss.swig_ptr(products),
    )
    return products
