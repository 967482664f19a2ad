"""The synthetic web of `lvd demo`, drawn with known truth: what every file is, and what it is a copy of.

ROOT/curated/CONCEPT/N.jpg    a third of the concepts, balanced, few of each
ROOT/holdout/CONCEPT/N.jpg    the same concepts, an evaluation set
ROOT/uncurated/sites/…        all concepts with a long tail, copies, leaks and broken files
ROOT/uncurated/tars/*.tar     more of the same as WebDataset, with captions and JSON beside the images
ROOT/truth.parquet            one row per file
"""

import io
import json
import struct
import tarfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from pipelines.demo.concepts import CONCEPTS, Concept
from pipelines.demo.edits import EDITS, edit_file
from pipelines.demo.pictures import draw
from pipelines.demo.score import BROKEN_REASONS, TRUTH, Truth

CURATED, UNCURATED, HOLDOUT = "trusted", "web", "evaluation"
FOLDERS = {CURATED: "curated", UNCURATED: "uncurated/sites", HOLDOUT: "holdout"}
TARS = "uncurated/tars"
TRUSTED = CONCEPTS[::3]  # CONCEPTS stand in order of frequency, so these are common and rare ones
LEAKS = ("leak_exact", "leak_reencode", "leak_resize")
NUM_PER_TAR = 200


@dataclass(frozen=True)
class WebFile:
    """One file of the web, before it is drawn."""

    pool: str
    concept: Concept | None
    kind: str  # original | exact | an edit | leak_… | broken_…
    parent: int | None = None  # its place in the plan; parents stand before their copies


@dataclass(frozen=True)
class WebPlan:
    """All files of the web and where they will lie; a place is (folder or tar, member or path, key)."""

    items: list[WebFile]
    keys: list[str]
    tars: list[str | None]  # the tar that holds the file, None for a file in a folder


def draw_web(root: Path, *, seed: int, num_images: int = 3_600, num_threads: int = 2) -> Truth:
    """Draw the web below `root`, with `truth.parquet` beside it.

    Args:
        root: a directory, empty or missing.
        seed: decides every file.
        num_images: files in all pools together, about.
        num_threads: threads that draw; decides nothing but the time taken.

    Returns:
        The truth: schema `TRUTH`, one row per file.
    """
    plan = plan_web(seed=seed, num_images=num_images)
    files: dict[int, bytes] = {}
    with ThreadPoolExecutor(num_threads) as threads:
        for is_copy in (False, True):  # originals first: their copies are made from their bytes
            todo = [index for index, item in enumerate(plan.items) if (item.parent is not None) == is_copy]
            made = threads.map(lambda index: _make(plan, index, files, seed=seed), todo)
            files.update(list(zip(todo, made, strict=True)))
    _write_files(root, plan, files, seed=seed)
    truth = _truth(plan)
    pq.write_table(truth, root / "truth.parquet")
    return truth


def plan_web(*, seed: int, num_images: int) -> WebPlan:
    """Decide which files there are and what each is a copy of, without drawing any."""
    rng = np.random.default_rng(seed)
    items = _plan_originals(num_images)
    items += _plan_copies(items, num_images, rng)
    items += _plan_leaks(items, rng)
    items += [
        WebFile(UNCURATED, None, kind) for kind in BROKEN_REASONS for _ in range(max(2, num_images // 450))
    ]
    return _place(items, rng)


def trusted_config(root: Path, run_dir: Path) -> dict[str, Any]:
    """The config of a run over the trusted pictures alone, without what leaks the evaluation set."""
    data = demo_config(root, run_dir)
    pools = {name: pool for name, pool in data["pools"].items() if name != UNCURATED}
    return data | {"name": "trusted", "pools": pools}


def demo_config(root: Path, run_dir: Path, *, embedder: str = "gist") -> dict[str, Any]:
    """The config of the demo's run over the web below `root`."""
    pools = {
        CURATED: {
            "role": "curated",
            "sources": [{"kind": "folder", "path": str(root / FOLDERS[CURATED])}],
            "retrieve": {"method": "sample", "neighbours": 6},
        },
        UNCURATED: {
            "role": "uncurated",
            "sources": [
                {"kind": "folder", "path": str(root / FOLDERS[UNCURATED])},
                {"kind": "tars", "path": str(root / TARS)},
            ],
        },
        HOLDOUT: {
            "role": "holdout",
            "sources": [{"kind": "folder", "path": str(root / FOLDERS[HOLDOUT])}],
        },
    }
    # In this web two pictures that are no copies lie at 0.947 at most in `gist`, and at 8 bits at least.
    copies = {"phash_radius": 6, "cosine_threshold": 0.955}
    return {
        "name": "demo",
        "seed": 0,
        "run_dir": str(run_dir),
        "pools": pools,
        "ingest": {"part_rows": 500},
        # A few thousand forwards of a small model are quicker than to compile it in every worker, and their
        # sums too small to be shared among threads.
        "describe": {"embed": {"embedder": embedder, "compile": False}, "descriptor": "gist"},
        "executor": {"threads": 1},
        "judge": {"min_side_px": 32, "max_aspect": 8.0},
        "dedup": {**copies, "edge_floor": 0.9},
        "decontaminate": copies,
        "cluster": {"num_clusters": 2 * len(TRUSTED)},
        "shard": {"max_samples": 200},
    }


def _plan_originals(num_images: int) -> list[WebFile]:
    items = []
    for pool, share in ((CURATED, 0.07), (HOLDOUT, 0.05)):
        num_each = max(3, round(share * num_images / len(TRUSTED)))
        items += [WebFile(pool, concept, "original") for concept in TRUSTED for _ in range(num_each)]
    tail = 1 / (np.arange(len(CONCEPTS)) + 2.0)
    counts = np.maximum(2, np.round(0.70 * num_images * tail / tail.sum())).astype(int)
    for concept, count in zip(CONCEPTS, counts, strict=True):
        items += [WebFile(UNCURATED, concept, "original")] * int(count)
    return items


def _plan_copies(items: list[WebFile], num_images: int, rng: np.random.Generator) -> list[WebFile]:
    originals = [index for index, item in enumerate(items) if item.pool != HOLDOUT]
    popular = rng.choice(originals, max(2, len(originals) // 60), replace=False)
    copies = []
    for kind in ("exact", *EDITS):
        for _ in range(max(2, round(0.015 * num_images))):
            # A third of the copies are of few, popular pictures, as on the web.
            parent = int(rng.choice(popular if rng.uniform() < 0.33 else originals))
            copies.append(WebFile(UNCURATED, items[parent].concept, kind, parent))
    return copies


def _plan_leaks(items: list[WebFile], rng: np.random.Generator) -> list[WebFile]:
    """Half of the holdout leaks, each image once; one leak in ten into the curated pool."""
    holdout = rng.permutation([index for index, item in enumerate(items) if item.pool == HOLDOUT])
    leaks = []
    for number, parent in enumerate(holdout[: len(holdout) // 2].tolist()):
        pool = CURATED if number % 10 == 0 else UNCURATED
        leaks.append(WebFile(pool, items[parent].concept, LEAKS[number % len(LEAKS)], parent))
    return leaks


def _place(items: list[WebFile], rng: np.random.Generator) -> WebPlan:
    """Give every file its key; on the web the order is chance, so that no name tells what a file is."""
    web = [index for index, item in enumerate(items) if item.pool == UNCURATED]
    number = dict(zip(web, rng.permutation(len(web)).tolist(), strict=True))
    keys: list[str] = []
    tars: list[str | None] = []
    in_folder = round(0.65 * len(web))
    for index, item in enumerate(items):
        suffix = _suffix(item, rng)
        tar = None
        if item.pool != UNCURATED:
            assert item.concept is not None
            key = f"{item.concept.name.replace(' ', '-')}/{index:05d}.{suffix}"
        elif number[index] < in_folder:
            key = f"site-{number[index] // 100:02d}/{number[index]:05d}.{suffix}"
        else:
            tar = f"web-{(number[index] - in_folder) // NUM_PER_TAR:03d}.tar"
            key = f"{tar}/{number[index]:05d}.{suffix}"
        keys.append(key)
        tars.append(tar)
    return WebPlan(items, keys, tars)


def _suffix(item: WebFile, rng: np.random.Generator) -> str:
    if item.kind == "broken_bomb":
        return "png"
    if item.kind == "original":
        return str(rng.choice(["jpg", "png", "webp"], p=[0.94, 0.04, 0.02]))
    return "jpg"


def _make(plan: WebPlan, index: int, files: dict[int, bytes], *, seed: int) -> bytes:
    """The bytes of one file; of a copy, from its parent's bytes in `files`."""
    item = plan.items[index]
    rng = np.random.default_rng([seed, index])
    if item.parent is not None:
        source = files[item.parent]
        edit = item.kind.removeprefix("leak_")
        for kind in EDITS:
            if kind == edit:
                return edit_file(source, kind, rng)
        return source
    if item.concept is not None:
        return _encode(draw(item.concept, rng), plan.keys[index], rng)
    return _break(item.kind, rng)


def _encode(image: Image.Image, key: str, rng: np.random.Generator) -> bytes:
    stream = io.BytesIO()
    match key.rsplit(".", 1)[1]:
        case "png":
            image.save(stream, "PNG", compress_level=1)
        case "webp":
            image.save(stream, "WEBP", quality=85, method=0)
        case _:
            image.save(stream, "JPEG", quality=int(rng.integers(80, 96)))
    return stream.getvalue()


def _break(kind: str, rng: np.random.Generator) -> bytes:
    """A file that no dataset should hold."""
    picture = draw(CONCEPTS[int(rng.integers(len(CONCEPTS)))], rng)
    match kind:
        case "broken_empty":
            return b""
        case "broken_html":
            return b"<!DOCTYPE html><html><title>404 Not Found</title><h1>Not Found</h1></html>\n"
        case "broken_bomb":
            return _bomb(int(rng.integers(30_000, 60_000)))
        case "broken_tiny":
            picture = picture.resize((int(rng.integers(4, 15)), int(rng.integers(4, 15))))
        case "broken_aspect":
            picture = picture.resize((int(rng.integers(1_600, 2_400)), int(rng.integers(128, 145))))
    data = _encode(picture, ".jpg", rng)
    return data[: int(len(data) * rng.uniform(0.3, 0.7))] if kind == "broken_truncated" else data


def _bomb(side_px: int) -> bytes:
    """A PNG of a hundred bytes whose header promises `side_px` squared pixels."""
    header = struct.pack(">IIBBBBB", side_px, side_px, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n"
    for name, body in ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(99))), (b"IEND", b"")):
        data += struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    return data


def _write_files(root: Path, plan: WebPlan, files: dict[int, bytes], *, seed: int) -> None:
    by_tar: dict[str, list[int]] = {}
    for index, (item, key, tar) in enumerate(zip(plan.items, plan.keys, plan.tars, strict=True)):
        if tar is not None:
            by_tar.setdefault(tar, []).append(index)
            continue
        path = root / FOLDERS[item.pool] / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(files[index])
    (root / TARS).mkdir(parents=True, exist_ok=True)
    for tar, indices in by_tar.items():
        with tarfile.open(root / TARS / tar, "w", format=tarfile.USTAR_FORMAT) as opened:
            for index in sorted(indices, key=lambda index: plan.keys[index]):
                for name, data in _sample(plan, index, files[index], seed=seed):
                    member = tarfile.TarInfo(name)
                    member.size = len(data)
                    opened.addfile(member, io.BytesIO(data))


def _sample(plan: WebPlan, index: int, data: bytes, *, seed: int) -> Iterator[tuple[str, bytes]]:
    """The members of one WebDataset sample: the image, its caption, and what its page said."""
    concept = plan.items[index].concept
    name = plan.keys[index].rsplit("/", 1)[1]
    stem = name.rsplit(".", 1)[0]
    caption = f"a picture of {concept.name}" if concept else "click here to see this image"
    page = {"url": f"https://example.org/{seed}/{stem}.html", "licence": "CC0-1.0"}
    yield name, data
    yield f"{stem}.txt", caption.encode()
    yield f"{stem}.json", json.dumps(page).encode()


def _truth(plan: WebPlan) -> Truth:
    parents = [item.parent for item in plan.items]
    return pa.table(
        {
            "pool": [item.pool for item in plan.items],
            "key": plan.keys,
            "concept": [item.concept.name if item.concept else None for item in plan.items],
            "kind": [item.kind for item in plan.items],
            "parent_pool": [None if at is None else plan.items[at].pool for at in parents],
            "parent_key": [None if at is None else plan.keys[at] for at in parents],
        },
        schema=TRUTH,
    )
