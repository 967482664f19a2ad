"""Images described per second, end to end, against the loop that one would write by hand.

Both sides take the same JPEG bytes through the same ViT-S/14 (random weights, 224 px). The reference opens
with Pillow, applies timm's own preprocessing and runs timm in fp32, eager, batch 32. Ours hashes, decodes
ahead in threads, and runs the forward that the configuration resolves to. Rounds alternate.

    python tests/benchmarks/bench_describe.py [--images DIR] [--num N] [--rounds R] [--model NAME]

Without a folder it makes photographs-to-be of 2,000 px: smooth noise with grain, about 0.5 MB each.
"""

import argparse
import io
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
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
from pipelines.models import load_embedder, resolve

SIDE_PX = 224
BATCH_ROWS = 32


def main() -> None:
    """Measure and print one JSON line."""
    args = _arguments()
    files = _photos(args.images, args.num)
    torch.manual_seed(0)
    net = timm.create_model(args.model, num_classes=0, img_size=SIDE_PX).eval().requires_grad_(False)
    with tempfile.TemporaryDirectory() as folder:
        weights = f"{folder}/weights.safetensors"
        save_file(net.state_dict(), weights)
        config = resolve(
            EmbedConfig(
                embedder=f"timm:{args.model}@{weights}",
                image_size_px=SIDE_PX,
                batch_rows=BATCH_ROWS,
                threads=args.threads,
            )
        )
        embedder = load_embedder(config)
    assert embedder is not None
    settings = DescribeConfig(embed=config, decode_threads=args.threads)
    full = np.full((BATCH_ROWS, SIDE_PX, SIDE_PX, 3), 127, np.uint8)
    sides: dict[str, Callable[[], object]] = {
        "lvd": lambda: _describe(files, embedder, settings),
        "plain": lambda: _plain_loop(files, net),
        "bare model": lambda: [embedder.embed(full) for _ in range(-(-len(files) // BATCH_ROWS))],
        "decode only": lambda: _describe(files, _NoModel(embedder), settings),
    }
    rates = _interleaved(sides, len(files), args.rounds)
    line = {
        "what": f"describe, {args.model} at {SIDE_PX} px, {config.dtype}, compile {config.compile}",
        "size": f"{len(files)} JPEGs, mean {sum(map(len, files)) // len(files) // 1000} kB",
        "rate": round(rates["lvd"], 2),
        "unit": "images/s",
        "reference": "Pillow + timm fp32 eager, batch 32",
        "reference_rate": round(rates["plain"], 2),
        "ratio": round(rates["lvd"] / rates["plain"], 2),
        "bare_model_rate": round(rates["bare model"], 2),
        "share_of_bare_model": round(rates["lvd"] / rates["bare model"], 3),
        "decode_only_rate": round(rates["decode only"], 1),
    }
    print(json.dumps(line))


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


def _describe(files: list[bytes], embedder: Embedder, settings: DescribeConfig) -> None:
    made = describe(len(files), files.__getitem__, embedder=embedder, descriptor=None, config=settings)
    assert made.table["reason"].null_count == len(files)


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


def _photos(folder: str | None, num: int) -> list[bytes]:
    if folder is not None:
        found = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
        step = max(1, len(found) // num)
        return [path.read_bytes() for path in found[::step][:num]]
    rng = np.random.default_rng(0)
    files = []
    for _ in range(num):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8)).resize((2000, 1500))
        grain = rng.integers(-9, 10, (1500, 2000, 1))
        noisy = np.clip(np.asarray(coarse, np.int16) + grain, 0, 255).astype(np.uint8)
        out = io.BytesIO()
        Image.fromarray(noisy).save(out, "JPEG", quality=75)
        files.append(out.getvalue())
    return files


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", help="a folder of JPEGs")
    parser.add_argument("--num", type=int, default=128, help="images in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--model", default="vit_small_patch14_dinov2")
    return parser.parse_args()


if __name__ == "__main__":
    main()
