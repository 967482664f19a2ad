"""k-means on a GPU: the sieves of `curation.cluster.assignment`, the first of them a product in fp16.

Vectors are fp16 as they are. Centroids, less their mean, are rounded to fp16, products summed in fp32 and
rounded to fp16 once more; the bound on all of that leaves to the CPU the few pairs that fp32 and fp64 decide.
Sums are fp64 without rounding (`curation.cluster.kmeans`), so the device may add them in any order. Results
are those of a CPU, to the bit.
"""

from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Float16, Float32, Int32, Int64
from torch import Tensor

from curation.cluster.assignment import MAX_NORM, decide, mean_of
from curation.cluster.sums import PartSums
from curation.errors import ConfigError
from curation.search.product import multiply, sums_in_fp32

BLOCK_ROWS = 65_536
TILE_CENTROIDS = 8192  # with as many rows as a block 1 GB of products
_SLACK = 1e-4  # for the rounding of residuals, which are computed in fp32
_FP16_ROUNDING, _FP16_SMALLEST = 2.0**-11, 2.0**-25


class GpuDesk:
    """Centroids on a device, and buffers.

    Args:
        centroids: unit length.
        device: of torch; a CPU gives the same results, slowly.

    Raises:
        ConfigError: torch sees no such device.
    """

    def __init__(self, centroids: Float32[np.ndarray, "k d"], *, device: str = "cuda") -> None:
        if device == "cuda" and not torch.cuda.is_available():
            raise ConfigError(
                "No GPU to cluster on", got="cuda", expected="cpu where torch sees no CUDA device"
            )
        self._centroids = np.ascontiguousarray(centroids)
        moved = torch.from_numpy(self._centroids - mean_of(self._centroids)).to(device)
        self._codes = moved.half()
        residual = torch.linalg.vector_norm(moved - self._codes.float(), dim=1).amax().item()
        norm = torch.linalg.vector_norm(moved, dim=1).amax().item() * (1 + _SLACK)
        dim = centroids.shape[1]
        # The centroid's own rounding; what the sums lose on any hardware; what fp16 makes of the result.
        lost = residual * (1 + _SLACK) + (2.0**-22 * (dim + 2) + _FP16_ROUNDING * (1 + _SLACK)) * norm
        self._window = 2 * (MAX_NORM * lost + _FP16_SMALLEST)
        width = min(TILE_CENTROIDS, len(centroids))
        self._products = torch.empty(BLOCK_ROWS * width, dtype=torch.float16, device=device)

    def to_device(self, vectors: Float16[np.ndarray, "b d"]) -> Tensor:
        """A copy on the device."""
        # torch takes no read-only (memory-mapped) array without a warning.
        return torch.from_numpy(np.array(vectors)).to(self._codes.device)

    def assign(self, vectors: Float16[np.ndarray, "b d"], on_device: Tensor) -> Int32[np.ndarray, "b"]:
        """Find the nearest centroid of every row: of the largest fp64 product, the lowest of equals.

        Args:
            vectors: unit length, at most `BLOCK_ROWS`; read only where the product cannot tell.
            on_device: the same.
        """
        row, cluster = self._propose(on_device)
        starts = np.searchsorted(row, np.arange(len(vectors)))
        lengths = np.diff(starts, append=len(row))
        best = cluster[starts]
        unsure = np.flatnonzero(lengths > 1)
        if len(unsure):
            rival = np.flatnonzero(np.repeat(lengths > 1, lengths))
            place = np.repeat(np.arange(len(unsure)), lengths[unsure])
            best[unsure] = decide(np.array(vectors[unsure]), self._centroids, place, cluster[rival])
        return best.astype(np.int32)

    def _propose(self, x: Tensor) -> tuple[Int64[np.ndarray, "p"], Int64[np.ndarray, "p"]]:
        """Every row with the centroids that may be its nearest, by row and then by centroid."""
        every = torch.arange(len(x), device=x.device)
        best = torch.full((len(x),), -torch.inf, device=x.device)
        found: list[tuple[Tensor, Tensor, Tensor]] = []
        for first in range(0, len(self._codes), TILE_CENTROIDS):
            tile = self._codes[first : first + TILE_CENTROIDS]
            table = multiply(x, tile, out=self._products)
            top, column = table.max(dim=1)
            best = torch.maximum(best, top.float())
            found.append((every, column + first, top.float()))
            table.scatter_(1, column[:, None], -torch.inf)
            crowded = torch.nonzero(table.amax(dim=1).float() >= best - self._window).flatten()
            row, other = torch.nonzero(
                table[crowded].float() >= (best[crowded] - self._window)[:, None], as_tuple=True
            )
            found.append((crowded[row], other + first, table[crowded[row], other].float()))
        row, cluster, score = (torch.cat(pieces) for pieces in zip(*found, strict=True))
        near = score >= (best - self._window)[row]
        row, cluster = row[near], cluster[near]
        order = torch.argsort(row * len(self._codes) + cluster)
        return row[order].cpu().numpy(), cluster[order].cpu().numpy()


def sum_on_gpu(
    arrays: Iterable[Float16[np.ndarray, "_ d"]],
    centroids: Float32[np.ndarray, "k d"],
    *,
    device: str = "cuda",
) -> PartSums:
    """`sum_arrays` on a device: the same sums and counts, to the bit.

    Args:
        arrays: vectors of unit length, no zeros; few are open at a time.
        centroids: unit length.
        device: of torch.
    """
    with sums_in_fp32():
        desk = GpuDesk(centroids, device=device)
        sums = torch.zeros(centroids.shape, dtype=torch.float64, device=device)
        counts = np.zeros(len(centroids), np.int64)
        for vectors in arrays:
            for start in range(0, len(vectors), BLOCK_ROWS):
                block = vectors[start : start + BLOCK_ROWS]
                x = desk.to_device(block)
                cluster = desk.assign(block, x)
                sums.index_add_(0, torch.from_numpy(cluster).to(device), x.double())
                counts += np.bincount(cluster, minlength=len(counts))
        return PartSums(sums=sums.cpu().numpy(), counts=counts)


def assign_on_gpu(
    vectors: Float16[np.ndarray, "m d"], centroids: Float32[np.ndarray, "k d"], *, device: str = "cuda"
) -> Int32[np.ndarray, "m"]:
    """The nearest centroid of every row on a device."""
    with sums_in_fp32():
        desk = GpuDesk(centroids, device=device)
        blocks = [vectors[start : start + BLOCK_ROWS] for start in range(0, len(vectors), BLOCK_ROWS)]
        found = [desk.assign(block, desk.to_device(block)) for block in blocks]
    return np.concatenate([np.zeros(0, np.int32), *found])
