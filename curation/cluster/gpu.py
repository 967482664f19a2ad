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

from curation.cluster.assignment import search_for, settle
from curation.cluster.sums import PartSums
from curation.search.backend import Device
from curation.search.codes import Codes, encode
from curation.search.product import buffer_for, multiply, require_gpu, sums_in_fp32

BLOCK_ROWS = 65_536
TILE_CENTROIDS = 8192  # with as many rows as a block 1 GB of products


class GpuDesk:
    """Centroids on a device, and buffers.

    Args:
        centroids: unit length.
        device: a CPU gives the same results, slowly.

    Raises:
        ConfigError: torch sees no such device.
    """

    def __init__(self, centroids: Float32[np.ndarray, "k d"], *, device: Device = "cuda") -> None:
        if device == "cuda":
            require_gpu("cluster", instead="cpu")
        self._device: Device = device
        self._search = search_for(centroids, dtype="fp16", device=device)
        width = min(TILE_CENTROIDS, len(centroids))
        self._products = buffer_for("fp16", num_products=BLOCK_ROWS * width, device=device)

    def encode(self, vectors: Float16[np.ndarray, "b d"]) -> Codes:
        """Rows on the device; in fp16 they are their own codes."""
        return encode(vectors, dtype="fp16", device=self._device)

    def assign(self, vectors: Float16[np.ndarray, "b d"], codes: Codes) -> Int32[np.ndarray, "b"]:
        """Find the nearest centroid of every row: of the largest fp64 product, the lowest of equals.

        Args:
            vectors: unit length, at most `BLOCK_ROWS`; read only where the product cannot tell.
            codes: of the same.
        """
        row, cluster = self._propose(codes)
        best = settle(row, cluster, vectors_at=vectors.__getitem__, centroids=self._search.centroids)
        return best.astype(np.int32)

    def _propose(self, codes: Codes) -> tuple[Int64[np.ndarray, "p"], Int64[np.ndarray, "p"]]:
        """Every row with the centroids that may be its nearest, by row and then by centroid."""
        # Products in fp16 less a window are not rounded in fp64.
        window = torch.from_numpy(self._search.window(codes, held=self._products.dtype)).to(self._device)
        every = torch.arange(len(codes), device=self._device)
        best = torch.full((len(codes),), -torch.inf, dtype=torch.float64, device=self._device)
        found: list[tuple[Tensor, Tensor, Tensor]] = []
        for first in range(0, len(self._search.centroids), TILE_CENTROIDS):
            tile = self._search.codes.values[first : first + TILE_CENTROIDS]
            table = multiply(codes.values, tile, out=self._products)
            top, column = table.max(dim=1)
            best = torch.maximum(best, top.double())
            found.append((every, column + first, top.double()))
            table.scatter_(1, column[:, None], -torch.inf)
            crowded = torch.nonzero(table.amax(dim=1) >= best - window).flatten()
            row, other = torch.nonzero(table[crowded] >= (best - window)[crowded][:, None], as_tuple=True)
            found.append((crowded[row], other + first, table[crowded[row], other].double()))
        row, cluster, score = (torch.cat(pieces) for pieces in zip(*found, strict=True))
        near = score >= (best - window)[row]
        row, cluster = row[near], cluster[near]
        order = torch.argsort(row * len(self._search.centroids) + cluster)
        return row[order].cpu().numpy(), cluster[order].cpu().numpy()


def sum_on_gpu(
    arrays: Iterable[Float16[np.ndarray, "_ d"]],
    centroids: Float32[np.ndarray, "k d"],
    *,
    device: Device = "cuda",
) -> PartSums:
    """`sum_arrays` on a device: the same sums and counts, to the bit.

    Args:
        arrays: vectors of unit length, no zeros; few are open at a time.
        centroids: unit length.
        device: where.
    """
    with sums_in_fp32():
        desk = GpuDesk(centroids, device=device)
        sums = torch.zeros(centroids.shape, dtype=torch.float64, device=device)
        counts = np.zeros(len(centroids), np.int64)
        for vectors in arrays:
            for start in range(0, len(vectors), BLOCK_ROWS):
                block = vectors[start : start + BLOCK_ROWS]
                codes = desk.encode(block)
                cluster = desk.assign(block, codes)
                exact = codes.values[:, : sums.shape[1]].double()
                sums.index_add_(0, torch.from_numpy(cluster).to(device), exact)
                counts += np.bincount(cluster, minlength=len(counts))
        return PartSums(sums=sums.cpu().numpy(), counts=counts)


def assign_on_gpu(
    vectors: Float16[np.ndarray, "m d"], centroids: Float32[np.ndarray, "k d"], *, device: Device = "cuda"
) -> Int32[np.ndarray, "m"]:
    """The nearest centroid of every row on a device."""
    with sums_in_fp32():
        desk = GpuDesk(centroids, device=device)
        blocks = [vectors[start : start + BLOCK_ROWS] for start in range(0, len(vectors), BLOCK_ROWS)]
        found = [desk.assign(block, desk.encode(block)) for block in blocks]
    return np.concatenate([np.zeros(0, np.int32), *found])
