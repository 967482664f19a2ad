"""What a latency of 50 ms a request costs describe on S3, against the same images on a local disk, in turns.

The store is moto's server, which is slow by itself: so its cost without the latency stands beside it.
Options: `--images`, `--rounds`, `--image-s` (how long a forward takes; 0: the gist alone).
"""

import argparse
import io
import json
import os
import statistics
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import fsspec
import numpy as np
from jaxtyping import Float16, UInt8
from PIL import Image

from curation import storage
from curation.describe.describe import DescribeConfig, describe
from curation.describe.gist import Gist
from curation.ingest.listing import list_parts
from curation.ingest.rows import image_range, read_sample
from curation.ingest.sources import FolderSource, Source, TarSource
from curation.read_ahead import ReadAhead
from tests.s3_server import SERVER, s3_environment, serving

TESTS = Path(__file__).resolve().parents[1]
LATENCY_S = 0.05


class Forward:
    """A gist that takes as long as a network on a device of its own: the processor is free meanwhile."""

    def __init__(self, image_s: float) -> None:
        self._gist, self._image_s = Gist(), image_s
        self.name, self.dim = "forward", self._gist.dim
        self.view, self.batch_rows = self._gist.view, self._gist.batch_rows

    def embed(self, pixels: UInt8[np.ndarray, "n s s 3"]) -> Float16[np.ndarray, "n d"]:
        time.sleep(self._image_s * len(pixels))
        return self._gist.embed(pixels)


def photographs(number: int) -> list[bytes]:
    """Real photographs of about 224 px where there are some, drawn ones elsewhere."""
    folder = TESTS.parents[1] / "shared" / "real" / "imagenette" / "train"
    if folder.is_dir():
        return [path.read_bytes() for path in sorted(p for p in folder.rglob("*") if p.is_file())[:number]]
    rng, found = np.random.default_rng(0), []
    for _ in range(number):
        out = io.BytesIO()
        noise = Image.fromarray(rng.integers(0, 256, (28, 28, 3), np.uint8))
        noise.resize((224, 224), Image.Resampling.BICUBIC).save(out, "JPEG", quality=90)
        found.append(out.getvalue())
    return found


def write_inputs(root: Path, pictures: list[bytes]) -> None:
    """A folder of files, and tars of a hundred."""
    (root / "folder").mkdir()
    (root / "tars").mkdir()
    for number, data in enumerate(pictures):
        (root / "folder" / f"{number:05d}.jpg").write_bytes(data)
        with tarfile.open(root / "tars" / f"{number // 100:03d}.tar", "a") as tar:
            member = tarfile.TarInfo(f"{number:05d}.jpg")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def use_endpoint(port: int, folder: str) -> None:
    """From now on `s3://` is the server at that port."""
    import s3fs

    os.environ |= s3_environment(f"http://127.0.0.1:{port}", Path(folder))
    s3fs.S3FileSystem.clear_instance_cache()


def rows_of(source: Source) -> list[dict[str, Any]]:
    parts = list(list_parts(source, part_rows=1 << 20))
    return [row for part in parts for row in part.table.to_pylist()]


def time_describe(rows: list[dict[str, Any]], model: Forward, *, ahead: bool) -> float:
    """Seconds of describe over the rows, the warming up of connections apart."""
    storage.read_bytes(rows[0]["path"], 0, 1)
    ranges = map(image_range, rows) if ahead else ()
    start = time.perf_counter()
    with ReadAhead(ranges) as reader:
        found = describe(
            len(rows),
            lambda row: read_sample(reader, rows[row]),
            embedder=model,
            descriptor=None,
            config=DescribeConfig(),
        )
    assert not found.read_errors
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    # 55 images/s: a compiled ViT-S/14 on two cores.
    parser.add_argument("--image-s", type=float, default=1 / 55, help="of a forward, seconds an image")
    options = parser.parse_args()
    model = Forward(options.image_s)
    times: dict[str, list[float]] = {}
    proxy = (sys.executable, str(TESTS / "slow_proxy.py"))
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(SERVER) as moto,
        serving((*proxy, str(moto), "0")) as near,
        serving((*proxy, str(moto), str(LATENCY_S))) as far,
    ):
        write_inputs(Path(folder), photographs(options.images))
        use_endpoint(moto, folder)
        fs = fsspec.filesystem("s3")
        fs.mkdir("pool")
        fs.put(folder, "pool/in", recursive=True)
        sources = [("folder", FolderSource), ("tars", TarSource)]
        local = {name: rows_of(kind(path=f"{folder}/{name}")) for name, kind in sources}
        remote = {name: rows_of(kind(path=f"s3://pool/in/{name}")) for name, kind in sources}
        for _ in range(options.rounds):
            for name, rows in local.items():
                times.setdefault(f"{name}, local", []).append(time_describe(rows, model, ahead=True))
                for port, latency in ((near, "0 ms"), (far, "50 ms")):
                    use_endpoint(port, folder)
                    label = f"{name}, S3 at {latency}"
                    times.setdefault(label, []).append(time_describe(remote[name], model, ahead=True))
        use_endpoint(far, folder)
        few = remote["tars"][: max(50, options.images // 10)]
        alone_s = time_describe(few, model, ahead=False) / len(few)
    median_s = {label: statistics.median(values) for label, values in times.items()}
    ratios = {
        name: {
            "over_local": round(median_s[f"{name}, S3 at 50 ms"] / median_s[f"{name}, local"], 3),
            "over_no_latency": round(median_s[f"{name}, S3 at 50 ms"] / median_s[f"{name}, S3 at 0 ms"], 3),
        }
        for name in local
    }
    print(
        json.dumps(
            {
                "what": "describe from S3 behind 50 ms a request, read ahead",
                "size": options.images,
                "forward_s": round(options.image_s, 4),
                "rate": {label: round(options.images / value, 1) for label, value in median_s.items()},
                "unit": "images/s",
                "time": ratios,
                "rate_of_tars_at_50_ms_not_read_ahead": round(1 / alone_s, 1),
            }
        )
    )


if __name__ == "__main__":
    main()
