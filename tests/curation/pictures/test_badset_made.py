"""Every bad picture of the development data: judged as its index says, in little memory and time."""

import resource
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from badset import read_index, wrong_verdict

from curation.describe.filters import JudgeConfig, judge, pixel_std
from curation.describe.gist import Gist
from curation.describe.phash import grey32, phash
from curation.pictures.decode import DecodeConfig, Decoded, decode
from curation.pictures.views import render
from curation.schema import DESCRIBED, REASONS

MAX_FILE_S = 10
MAX_RSS_BYTES = 1_000_000_000


def _verdict(decoded: Decoded) -> str | None:
    """The reason of describe, or else of judge, with everything between them run too."""
    row: dict[str, object] = {"num_bytes": 1, "has_embedding": True, "warnings": decoded.warnings}
    row |= {"width": decoded.width, "height": decoded.height, "reason": decoded.reason}
    if decoded.pixels is not None:
        grey = grey32(decoded.pixels)[None]
        gist = Gist()
        vector = gist.embed(render(decoded.pixels, gist.view)[None])
        row |= {"phash": int(phash(grey)[0]), "pixel_std": float(pixel_std(grey)[0])}
        row["has_embedding"] = bool(vector.any())
    table = pa.Table.from_pylist([row], DESCRIBED)
    return decoded.reason or judge(table, JudgeConfig())["reason"].to_pylist()[0]


def test_every_file(shared_dir: Path) -> None:
    render(np.zeros((300, 300, 3), np.uint8), Gist().view)  # the import of torch is no file's time
    wrong, slow = [], []
    peak_before = _peak_rss_bytes()
    rows = read_index(shared_dir / "badset")
    assert len(rows) > 100
    for row in rows:
        name = row["file"].removeprefix("made/")
        data = (shared_dir / "badset" / row["file"]).read_bytes()
        start = time.perf_counter()
        decoded = decode(data, need_side_px=224, config=DecodeConfig())
        verdict = _verdict(decoded)
        if time.perf_counter() - start > MAX_FILE_S:
            slow.append(name)
        wrong += [f"{name}: {words}" for words in _differences(row, decoded, verdict)]
    assert not slow
    assert not wrong, "\n".join(wrong)
    assert _peak_rss_bytes() - peak_before < MAX_RSS_BYTES  # tests before this one may have used more


def _peak_rss_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _differences(row: dict[str, str], decoded: Decoded, verdict: str | None) -> list[str]:
    found = []
    if decoded.reason is not None and decoded.reason not in REASONS["describe"]:
        found.append(f"unknown reason {decoded.reason}")
    if wrong := wrong_verdict(row, verdict):
        found.append(wrong)
    if row["must"] == "accept":
        if row["upright_wh"] not in ("-", f"{decoded.width}x{decoded.height}"):
            found.append(f"size {decoded.width} x {decoded.height}")
        if row["mean_rgb"] != "-" and decoded.pixels is not None:
            mean = decoded.pixels.reshape(-1, 3).mean(axis=0)
            if np.abs(mean - [int(level) for level in row["mean_rgb"].split(",")]).max() > 4:
                found.append(f"mean {mean}")
    return found
