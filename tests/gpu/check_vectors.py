"""Check the vector half of curation on a machine with one CUDA GPU, in one call that needs no pytest:

    python tests/gpu/check_vectors.py

It measures the bf16 product of the device, then how much of that rate the exact join, an iteration of
k-means, the exact search for neighbours, and the embedding of JPEGs by a ViT-L reach, and whether edges, sums
and neighbours are those of the CPU. It
prints one line of JSON; the exit code is 0 when the results are equal. The same, small, without a GPU:

    python tests/gpu/check_vectors.py --device cpu --num-rows 3000 --clusters 50 --images 8 --arch vit_micro

What must be importable: torch (2.11 or later), numpy, faiss where few pairs have to be decided, pydantic,
jaxtyping, pyarrow, pillow, simplejpeg. Neither Ray, open_clip nor timm is.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

REPO = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPO), str(REPO / "tests" / "pretrain")]

import numpy as np  # noqa: E402
import torch  # noqa: E402
from drawn_dataset import draw_jpeg  # noqa: E402

from curation.cluster.gpu import sum_on_gpu  # noqa: E402
from curation.cluster.seeding import nearest_distances  # noqa: E402
from curation.cluster.sums import sum_arrays  # noqa: E402
from curation.describe.describe import DescribeConfig, describe  # noqa: E402
from curation.describe.torch_embedder import TorchEmbedder  # noqa: E402
from curation.search.exact import cosine_pairs  # noqa: E402
from curation.search.topk import TopK, top_k  # noqa: E402
from pipelines.models.own_vit import ClassToken  # noqa: E402
from pretrain.data.augment import IMAGENET_MEAN, IMAGENET_STD  # noqa: E402
from pretrain.evaluate.view import evaluation_view  # noqa: E402
from pretrain.model.vit import Arch, VisionTransformer, variant  # noqa: E402

DIM, THRESHOLD, SIDE_PX = 1024, 0.6, 224
CHECKED_ROWS = 20_000  # compared with what a CPU finds


def main() -> int:
    """Measure and compare; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--num-rows", type=int, default=1_000_000)
    parser.add_argument("--clusters", type=int, default=10_000)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--arch", choices=get_args(Arch), default="vit_large")
    parser.add_argument("--batch", type=int, help="images of a forward (256; on a CPU 4)")
    given = parser.parse_args()
    is_gpu = given.device == "cuda"
    vectors = draw_vectors(given.num_rows)
    roof = product_rate(given.device, side=16_384 if is_gpu else 512)
    line: dict[str, Any] = {
        "what": "vectors on a GPU",
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if is_gpu else "cpu",
        "bf16_product_tflops": round(roof / 1e12, 2),
    }
    line |= check_edges(vectors, is_gpu=is_gpu, roof=roof)
    line |= check_kmeans(vectors, given, roof=roof)
    line |= check_neighbours(vectors, given.device, roof=roof)
    line |= measure_embedding(given, roof=roof)
    print(json.dumps(line))
    return 0 if line["edges_equal"] and line["sums_equal"] and line["neighbours_equal"] else 1


def draw_vectors(num_rows: int) -> np.ndarray:
    """Unit vectors around concepts; one row in ten copies another with a little noise."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((max(num_rows // 200, 1), DIM), np.float32)
    rows = np.empty((num_rows, DIM), np.float16)
    for start in range(0, num_rows, 50_000):
        part = rows[start : start + 50_000]
        drawn = centres[rng.integers(len(centres), size=len(part))]
        drawn = drawn + 1.5 * rng.standard_normal(part.shape, np.float32)
        drawn[1::10] = drawn[::10][: len(drawn[1::10])] + 0.3 * rng.standard_normal(drawn[1::10].shape)
        part[:] = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return rows


def product_rate(device: str, *, side: int) -> float:
    """FLOP/s of a square bf16 product, the best of several."""
    a, b = torch.randn((2, side, side), device=device).bfloat16()
    out = torch.empty_like(a)
    return 2 * side**3 / min(seconds(lambda: torch.mm(a, b, out=out), device) for _ in range(8))


def seconds(work: Callable[[], object], device: str) -> float:
    """Of one call, from an idle device to an idle device."""
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def check_edges(vectors: np.ndarray, *, is_gpu: bool, roof: float) -> dict[str, Any]:
    """All ordered pairs of a block, no use of symmetry."""
    backend = "cuda" if is_gpu else "torch"
    block = vectors[:300_000]

    def join(rows: np.ndarray, engine: Any) -> tuple[np.ndarray, ...]:
        pairs = cosine_pairs(rows, rows, threshold=THRESHOLD, same=False, backend=engine)
        return pairs.a, pairs.b, pairs.score

    few = block[:CHECKED_ROWS]
    is_equal = all(map(np.array_equal, join(few, backend), join(few, "torch")))
    spent = seconds(lambda: join(block, backend), "cuda" if is_gpu else "cpu")
    rate = 2 * len(block) ** 2 * DIM / spent
    return {"edges_equal": is_equal, "edges_of_roof": round(rate / roof, 3), "edges_s": round(spent, 3)}


def check_kmeans(vectors: np.ndarray, given: argparse.Namespace, *, roof: float) -> dict[str, Any]:
    """One iteration's assignment and sums, and the distances of the seeding."""
    start = vectors[:: max(len(vectors) // given.clusters, 1)][: given.clusters].astype(np.float32)
    centroids = start / np.linalg.norm(start, axis=1, keepdims=True)
    few = vectors[:CHECKED_ROWS]
    ours, expected = sum_on_gpu([few], centroids, device=given.device), sum_arrays([few], centroids)
    is_equal = np.array_equal(ours.sums, expected.sums) and np.array_equal(ours.counts, expected.counts)
    spent = seconds(lambda: sum_on_gpu([vectors], centroids, device=given.device), given.device)
    rate = 2 * len(vectors) * len(centroids) * DIM / spent
    here, there = (nearest_distances(few, few[:300], device=device) for device in ("cpu", given.device))
    is_equal = is_equal and np.array_equal(here, there)
    return {"sums_equal": is_equal, "kmeans_of_roof": round(rate / roof, 3), "kmeans_s": round(spent, 3)}


def check_neighbours(vectors: np.ndarray, device: Any, *, roof: float) -> dict[str, Any]:
    """The four nearest of all vectors to a block of queries, as retrieval by sample asks for them."""
    queries = vectors[: 1 << 16]

    def search(asked: np.ndarray, pool: np.ndarray, on: Any) -> TopK:
        return top_k(asked, [(np.arange(len(pool)), pool)], k=4, device=on)

    few = vectors[:CHECKED_ROWS]
    here, there = (search(few[:2000], few, on) for on in ("cpu", device))
    is_equal = np.array_equal(here.index, there.index) and np.array_equal(here.score, there.score)
    spent = seconds(lambda: search(queries, vectors, device), device)
    rate = 2 * len(queries) * len(vectors) * DIM / spent
    return {
        "neighbours_equal": is_equal,
        "neighbours_of_roof": round(rate / roof, 3),
        "neighbours_s": round(spent, 3),
    }


def measure_embedding(given: argparse.Namespace, *, roof: float) -> dict[str, Any]:
    """JPEGs of 288 × 320 px to unit vectors: read, decode, render, forward."""
    is_gpu = given.device == "cuda"
    torch.manual_seed(0)
    backbone = VisionTransformer(variant(given.arch))
    embedder = TorchEmbedder(
        given.arch,
        ClassToken(backbone),
        view=evaluation_view(SIDE_PX),
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        dtype="bf16" if is_gpu else "fp32",
        compile_=False,
        batch_rows=given.batch or (256 if is_gpu else 4),
        threads=os.cpu_count() or 1,
        device=given.device,
    )
    pictures = [draw_jpeg(number, size_px=(320, 288)) for number in range(min(given.images, 200))]
    config = DescribeConfig(decode_threads=os.cpu_count() or 1)

    def work() -> None:
        describe(
            given.images,
            lambda row: pictures[row % len(pictures)],
            embedder=embedder,
            descriptor=None,
            config=config,
        )

    rate = given.images / seconds(work, given.device)
    tokens = (SIDE_PX // backbone.config.patch_px) ** 2 + 1
    weights = sum(p.numel() for name, p in backbone.named_parameters() if "blocks" in name and p.dim() == 2)
    flops = 2 * tokens * weights + 4 * tokens**2 * backbone.config.dim * backbone.config.depth
    return {"embedding_of_roof": round(rate * flops / roof, 3), "images_per_s": round(rate, 1)}


if __name__ == "__main__":
    sys.exit(main())
