"""Every bad picture of the development data: judged as its index says, in little memory and time."""

import csv
import resource
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from curation.describe.decode import DecodeConfig, Decoded, decode
from curation.describe.filters import JudgeConfig, judge, pixel_std
from curation.describe.gist import Gist
from curation.describe.phash import grey32, phash
from curation.describe.views import render
from curation.schema import DESCRIBED, REASONS

MAX_FILE_S = 10
MAX_RSS_BYTES = 1_000_000_000
NAMED_REASONS = ("empty", "truncated", "corrupt", "not_an_image", "unsupported_format")

# Where the index leaves the choice ("either"), ours, and why.
CHOICES: dict[str, str | None] = {
    "trunc_jpeg_no_eoi.jpg": None,  # every pixel is there: kept, with a warning
    "zero_hole.jpg": None,  # libjpeg only remarks on stray bytes, as on many sound files: kept, warned
    "zero_page.jpg": "corrupt",  # libjpeg ran out of data within a block and made up the rest
    "ztxt_bomb_64MB.png": "metadata_bomb",
    "ztxt_many_100x0.9MB.png": "metadata_bomb",
    "itxt_bomb_64MB.png": "metadata_bomb",
    "iccp_bomb_64MB.png": "metadata_bomb",
    "ztxt_after_idat_bomb.png": "metadata_bomb",
    "prog_many_scans_3000.jpg": "corrupt",  # ten scans are usual; three thousand are an attack
    "float32_nan.tif": "unsupported_format",
    "many_chunks_20000.png": "too_small",
    "tiff_ifd_loop.tif": "too_small",
}
# Where our reason for a refusal is another than the index expects, and why.
OTHER_REASONS = {
    "one_byte.jpg": "not_an_image",  # one byte claims nothing
    "only_magic.jpg": "truncated",  # three bytes of a JPEG are the start of one
    "crlf_mangled.png": "not_an_image",  # the mangling took its signature
    "utf16_mangled.jpg": "not_an_image",  # and here
    "forged_max_u32.png": "too_many_pixels",  # what its header says is all that is read
    "bmp_neg_width.bmp": "too_many_pixels",  # Pillow reads the width as unsigned
}


def _rows(shared_dir: Path) -> list[dict[str, str]]:
    with (shared_dir / "badset" / "INDEX.tsv").open(newline="") as lines:
        rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    return [row for row in rows if row["file"].startswith("made/")]


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


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_every_file(shared_dir: Path) -> None:
    wrong, slow = [], []
    peak_before = _peak_rss_bytes()
    rows = _rows(shared_dir)
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
    name, must = row["file"].removeprefix("made/"), row["must"]
    found = []
    if decoded.reason is not None and decoded.reason not in REASONS["describe"]:
        found.append(f"unknown reason {decoded.reason}")
    if must == "either":
        if name not in CHOICES or verdict != CHOICES[name]:
            found.append(f"either, and got {verdict}")
        return found
    if (verdict is None) != (must == "accept"):
        found.append(f"must {must}, and got {verdict}")
    expected = row["expected"].removeprefix("reject:").split()[0].rstrip(";")
    if must == "reject" and expected in NAMED_REASONS and verdict != OTHER_REASONS.get(name, expected):
        found.append(f"expected {expected}, and got {verdict}")
    if must == "accept":
        if row["upright_wh"] not in ("-", f"{decoded.width}x{decoded.height}"):
            found.append(f"size {decoded.width} x {decoded.height}")
        if row["mean_rgb"] != "-" and decoded.pixels is not None:
            mean = decoded.pixels.reshape(-1, 3).mean(axis=0)
            if np.abs(mean - [int(level) for level in row["mean_rgb"].split(",")]).max() > 4:
                found.append(f"mean {mean}")
    return found
