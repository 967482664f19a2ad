"""Images described per second, end to end, against the bare model and the loop that one would write by hand.

All sides take the same JPEG bytes to the same ViT (random weights, 224 px). Ours hashes, decodes ahead,
measures, runs the forward that the configuration resolves to, scores the vectors with three heads and judges:
every verdict but faces. The bare model runs the same forwards on one batch that lies ready. The loop by hand
opens with Pillow, applies timm's own preprocessing and runs timm in fp32, eager. Rounds alternate; one JSON
line a case.

    python tests/benchmarks/bench_describe.py [--case small|base …] [--images DIR] [--num N] [--rounds R]

Cases: `small` is ViT-S/14 on pictures of 220 kpx, `base` ViT-B/14 on 2,000 px. With a folder its photographs
are brought to that size; without, they are smooth noise with grain.
"""

import argparse
import io
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import timm
import torch
from jaxtyping import Float16, UInt8
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from curation.describe.describe import DescribeConfig, describe
from curation.describe.embed import EmbedConfig, Embedder
from curation.describe.filters import JudgeConfig, judge
from curation.describe.heads import Head, Layer, score
from curation.describe.heads_config import HeadName
from pipelines.models.embedders import load_embedder
from pipelines.models.identity import resolve

SIDE_PX = 224
BATCH_ROWS = 32


@dataclass(frozen=True)
class Case:
    """A model, the size of its pictures (px), and their JPEG quality."""

    model: str
    size: tuple[int, int]
    quality: int


CASES = {
    "small": Case("vit_small_patch14_dinov2", (542, 406), 90),
    "base": Case("vit_base_patch14_dinov2", (2000, 1500), 75),
}
JUDGE = JudgeConfig(
    min_pixel_std=2, max_uniform_share=0.98, max_stroke_share=0.8, max_nsfw=2, min_aesthetic=-9
)


def main() -> None:
    """Measure and print one JSON line a case."""
    args = _arguments()
    for name in args.case or CASES:
        print(json.dumps(_measure(CASES[name], args)), flush=True)


def _measure(case: Case, args: argparse.Namespace) -> dict[str, object]:
    files = _photos(args.images, args.num, case)
    torch.manual_seed(0)
    net = timm.create_model(case.model, num_classes=0, img_size=SIDE_PX).eval().requires_grad_(False)
    with tempfile.TemporaryDirectory() as folder:
        weights = f"{folder}/weights.safetensors"
        save_file(net.state_dict(), weights)
        config = resolve(
            EmbedConfig(
                embedder=f"timm:{case.model}@{weights}",
                image_size_px=SIDE_PX,
                batch_rows=BATCH_ROWS,
            )
        )
        embedder = load_embedder(config, threads=args.threads)
    assert embedder is not None
    settings = DescribeConfig(embed=config, decode_threads=args.threads)
    heads = _heads(embedder.dim)
    full = np.full((BATCH_ROWS, SIDE_PX, SIDE_PX, 3), 127, np.uint8)
    sides: dict[str, Callable[[], object]] = {
        "lvd": lambda: _describe(files, embedder, settings, heads),
        "bare model": lambda: [embedder.embed(full) for _ in range(-(-len(files) // BATCH_ROWS))],
        "decode only": lambda: _describe(files, _NoModel(embedder), settings, {}),
    }
    if args.plain:
        sides["plain"] = lambda: _plain_loop(files, net)
    rates = _interleaved(sides, len(files), args.rounds)
    line = {
        "what": f"describe, {case.model} at {SIDE_PX} px, {config.dtype}, compile {config.compile}",
        "size": f"{len(files)} JPEGs of {case.size[0]}x{case.size[1]} px, mean "
        f"{sum(map(len, files)) // len(files) // 1000} kB",
        "rate": round(rates["lvd"], 2),
        "unit": "images/s",
        "bare_model_rate": round(rates["bare model"], 2),
        "share_of_bare_model": round(rates["lvd"] / rates["bare model"], 3),
        "decode_only_rate": round(rates["decode only"], 1),
    }
    if args.plain:
        line["reference"] = "Pillow + timm fp32 eager, batch 32"
        line["reference_rate"] = round(rates["plain"], 2)
        line["ratio"] = round(rates["lvd"] / rates["plain"], 2)
    return line


def _heads(dim: int) -> dict[HeadName, Head]:
    """Heads as large as LAION's: two stacks and a layer."""

    def stack(*widths: int) -> Head:
        sides = pairwise((dim, *widths, 1))
        return Head(
            tuple(Layer(torch.randn(out, into) / into**0.5, torch.zeros(out), True) for into, out in sides)
        )

    return {"nsfw": stack(64, 512, 256), "aesthetic": stack(1024, 128, 64, 16), "watermark": stack()}


def _interleaved(sides: dict[str, Callable[[], object]], num: int, rounds: int) -> dict[str, float]:
    """Median images/s of each side over alternating rounds, after one round to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for index in range(rounds + 1):
        for name, work in sides.items():
            start = time.perf_counter()
            work()
            if index:
                seconds[name].append(time.perf_counter() - start)
        print(
            f"round {index}: " + str({k: round(num / v[-1], 1) for k, v in seconds.items() if v}),
            file=sys.stderr,
        )
    return {name: num / statistics.median(taken) for name, taken in seconds.items()}


class _NoModel:
    """The model's view and shape without its forward: what reading, hashing and decoding alone can do."""

    def __init__(self, model: Embedder) -> None:
        self.name, self.dim, self.view, self.batch_rows = model.name, model.dim, model.view, model.batch_rows

    def embed(self, pixels: UInt8[np.ndarray, "n s s 3"]) -> Float16[np.ndarray, "n d"]:
        return np.ones((len(pixels), self.dim), np.float16)


def _describe(
    files: list[bytes], embedder: Embedder, settings: DescribeConfig, heads: Mapping[HeadName, Head]
) -> None:
    made = describe(len(files), files.__getitem__, embedder=embedder, descriptor=None, config=settings)
    assert made.table["reason"].null_count == len(files)
    assert made.embeddings is not None
    judge(made.table, JUDGE, scores=score(made.embeddings, heads))


def _plain_loop(files: list[bytes], net: nn.Module) -> list[np.ndarray]:
    config = timm.data.resolve_data_config({"input_size": (3, SIDE_PX, SIDE_PX)}, model=net)
    preprocess = timm.data.create_transform(**config)
    vectors = []
    for first in range(0, len(files), BATCH_ROWS):
        images = [Image.open(io.BytesIO(data)).convert("RGB") for data in files[first : first + BATCH_ROWS]]
        with torch.inference_mode():
            features = net(torch.stack([preprocess(image) for image in images]))
            vectors.append(nn.functional.normalize(features).half().numpy())
    return vectors


def _photos(folder: str | None, num: int, case: Case) -> list[bytes]:
    if folder is None:
        pictures = [_noise(number, case.size) for number in range(num)]
    else:
        found = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
        step = max(1, len(found) // num)
        pictures = [Image.open(path).convert("RGB").resize(case.size) for path in found[::step][:num]]
    files = []
    for picture in pictures:
        out = io.BytesIO()
        picture.save(out, "JPEG", quality=case.quality)
        files.append(out.getvalue())
    return files


def _noise(seed: int, size: tuple[int, int]) -> Image.Image:
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8)).resize(size)
    grain = rng.integers(-9, 10, (size[1], size[0], 1))
    return Image.fromarray(np.clip(np.asarray(coarse, np.int16) + grain, 0, 255).astype(np.uint8))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--case", choices=list(CASES), action="append", help="which; all where not given")
    parser.add_argument("--images", help="a folder of JPEGs")
    parser.add_argument("--num", type=int, default=128, help="images in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-plain", dest="plain", action="store_false", help="leave the loop by hand out")
    return parser.parse_args()


if __name__ == "__main__":
    main()
