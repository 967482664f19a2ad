"""Files for small runs, with names that would love to be HTML."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

HOSTILE = (
    "<img src=x onerror=alert(1)>.jpg",
    '"><svg onload=alert(2)>.jpg',
    "'-alert(3)-' onmouseover=alert(4) x='.jpg",
    "{{ 7 * 7 }}{% raw %}.jpg",
    "&lt;script&gt;.jpg",
    "gnp.\u202egpj.jpg",
)
MakeRun = Callable[..., Path]


def picture(number: int) -> Image.Image:
    """A picture unlike those of other numbers."""
    grid = np.random.default_rng(number).integers(0, 256, (6, 6, 3), np.uint8)
    return Image.fromarray(grid).resize((96, 80), Image.Resampling.BICUBIC)


def jpeg(number: int, quality: int = 92) -> bytes:
    """A picture's file."""
    out = io.BytesIO()
    picture(number).save(out, "JPEG", quality=quality)
    return out.getvalue()


def write_pool(folder: Path, files: dict[str, bytes]) -> dict[str, Any]:
    """Write a pool's files; returns its sources."""
    folder.mkdir(parents=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return {"sources": [{"kind": "folder", "path": str(folder)}]}
