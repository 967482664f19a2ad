"""Chains of copies that join two unlike pictures: slow cross-fades, and what is known of them."""

import io
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from PIL import Image

SIZE_PX = (224, 224)


def plant_chain(first: Path | bytes, last: Path | bytes, out: Path, *, num_steps: int) -> list[str]:
    """Write the frames of a cross-fade into a folder; returns their names, in order."""
    ends = [_picture(first), _picture(last)]
    out.mkdir(parents=True, exist_ok=True)
    names = []
    for step in range(num_steps):
        name = f"{out.name}-{step:03d}.jpg"
        Image.blend(*ends, step / (num_steps - 1)).save(out / name, "JPEG", quality=95)
        names.append(name)
    return names


def _picture(source: Path | bytes) -> Image.Image:
    with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
        return image.convert("RGB").resize(SIZE_PX, Image.Resampling.BICUBIC)


def newest(run_dir: Path, step: str, name: str) -> Path:
    """A file that the last attempt at a step left."""
    return max(run_dir.glob(f"steps/{step}/*/{name}"), key=lambda path: path.stat().st_mtime)


def weakest_by_hand(
    run_dir: Path, members: set[int], thresholds: dict[str, float]
) -> tuple[float, set[frozenset[int]]]:
    """The least share of a threshold among distinct pictures that edges join, and the pairs that have it.

    Args:
        run_dir: of a run whose edges lie in one file, so that they stand by global rows.
        members: global rows.
        thresholds: by kind of edge in use.
    """
    edges = pq.read_table(newest(run_dir, "dedup_edges", "edges.parquet")).to_pylist()
    edges = [edge for edge in edges if {edge["a"], edge["b"]} <= members]
    same = {row: row for row in members}  # the smallest that is equal by some kind
    for _ in members:
        for edge in edges:
            if edge["score"] == 1:
                same[edge["a"]] = same[edge["b"]] = min(same[edge["a"]], same[edge["b"]])
    shares: dict[frozenset[int], list[tuple[float, frozenset[int]]]] = {}
    for edge in edges:
        pair, share = frozenset((edge["a"], edge["b"])), edge["score"] / thresholds[edge["kind"]]
        if share >= 1 and len(distinct := frozenset(same[row] for row in pair)) == 2:
            shares.setdefault(distinct, []).append((share, pair))
    strongest = {distinct: max(share for share, _ in own) for distinct, own in shares.items()}
    least = min(strongest.values())
    weakest = [shares[distinct] for distinct, share in strongest.items() if share == least]
    return least, {pair for own in weakest for share, pair in own if share == least}


def health_of(run_dir: Path) -> list[dict[str, Any]]:
    """The health of every component, by number."""
    return pq.read_table(newest(run_dir, "dedup_components", "health.parquet")).to_pylist()


def members_of(run_dir: Path) -> dict[int, set[int]]:
    """The global rows of every component."""
    found: dict[int, set[int]] = {}
    for row in pq.read_table(newest(run_dir, "dedup_components", "copies.parquet")).to_pylist():
        found.setdefault(row["component"], set()).add(row["row"])
    return found
