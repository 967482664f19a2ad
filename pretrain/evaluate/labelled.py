"""Labelled images for evaluation: a folder with one folder for each class."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from curation.describe.decode import DecodeConfig, decode
from curation.describe.views import View, render
from curation.errors import ConfigError

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"}
NUM_THREADS = 4


@dataclass(frozen=True)
class Labelled:
    """Images with their classes.

    Attributes:
        pixels: RGB, square.
        labels: numbers of the classes, in the order of their names.
        classes: their names.
        num_unreadable: files left out because they cannot be decoded.
    """

    pixels: UInt8[Tensor, "n 3 s s"]
    labels: Int64[Tensor, "n"]
    classes: tuple[str, ...]
    num_unreadable: int


def class_names(folder: str) -> tuple[str, ...]:
    """The folders directly in a folder, sorted.

    Raises:
        ConfigError: when there are none.
    """
    root = Path(folder)
    found = tuple(sorted(path.name for path in root.iterdir() if path.is_dir())) if root.is_dir() else ()
    if not found:
        raise ConfigError(
            "There are no classes to evaluate on",
            got=folder,
            expected="a folder that holds a folder of images for each class",
        )
    return found


def read_labelled(folder: str, view: View, *, classes: Sequence[str] | None = None) -> Labelled:
    """Read all images of a folder as one square view each; they stay in memory, as bytes.

    Args:
        folder: with one folder for each class.
        view: how a picture becomes a square.
        classes: the names that the numbers stand for; the folder's own where None.

    Raises:
        ConfigError: when there is no class, a class that is not among `classes`, or no image.
    """
    own = class_names(folder)
    known = tuple(classes) if classes is not None else own
    if unknown := set(own) - set(known):
        raise ConfigError(
            f"{folder} has classes that the other folder lacks",
            got=", ".join(sorted(unknown)[:5]),
            expected="the same names of folders in both",
        )
    files = [(path, known.index(name)) for name in own for path in _files_in(Path(folder) / name)]
    with ThreadPoolExecutor(NUM_THREADS) as threads:
        views = list(threads.map(lambda item: _view_of(item[0], view), files))
    kept = [(pixels, label) for pixels, (_, label) in zip(views, files, strict=True) if pixels is not None]
    if not kept:
        raise ConfigError("There is no image to evaluate on", got=folder, expected="images in its folders")
    pixels = torch.from_numpy(np.stack([pixels for pixels, _ in kept])).permute(0, 3, 1, 2).contiguous()
    labels = torch.tensor([label for _, label in kept], dtype=torch.int64)
    return Labelled(pixels, labels, known, len(files) - len(kept))


def _files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)


def _view_of(path: Path, view: View) -> UInt8[np.ndarray, "s s 3"] | None:
    decoded = decode(path.read_bytes(), need_side_px=view.need_side_px, config=DecodeConfig())
    return None if decoded.pixels is None else render(decoded.pixels, view)
