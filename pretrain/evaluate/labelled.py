"""Labelled images for evaluation: files by the names of their classes."""

import errno
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from curation.errors import ConfigError
from curation.hidden import is_hidden
from curation.pictures.decode import DecodeConfig, decode
from curation.pictures.views import View, render

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"}
NUM_THREADS = 4


@dataclass(frozen=True)
class Labelled:
    """Images with their classes.

    Attributes:
        pixels: RGB, square.
        labels: numbers of the classes, in the order of their names.
        classes: their names.
        num_unreadable: files left out because they cannot be read or decoded.
    """

    pixels: UInt8[Tensor, "n 3 s s"]
    labels: Int64[Tensor, "n"]
    classes: tuple[str, ...]
    num_unreadable: int


def is_image_name(name: str) -> bool:
    """Whether a file is one of the images that are evaluated on."""
    return Path(name).suffix.lower() in SUFFIXES


def list_labelled(folder: str) -> dict[str, list[str]]:
    """The images of each class, a folder in `folder`, sorted; hidden ones are none.

    Raises:
        ConfigError: when there is no class.
    """
    root = Path(folder)
    names = sorted(path.name for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    classes: dict[str, list[str]] = {name: [] for name in names if not is_hidden(f"{name}/")}
    require_classes(classes, folder)
    for name, files in classes.items():
        below = (root / name).rglob("*")
        found = sorted(path for path in below if is_image_name(path.name) and path.is_file())
        files += [str(path) for path in found if not is_hidden(path.relative_to(root).as_posix())]
    return classes


def require_classes(classes: Mapping[str, Sequence[str]], folder: str) -> None:
    """Raise a ConfigError unless there is a class."""
    if not classes:
        raise ConfigError(
            "There are no classes to evaluate on",
            got=folder,
            expected="a folder that holds a folder of images for each class",
        )


def read_file(path: str) -> bytes:
    """The bytes of a local file.

    Raises:
        OSError: it cannot be read, is no regular file, or is larger than what is decoded.
    """
    # Opened so, a pipe that lies there by now waits for no writer.
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
        found, most = os.fstat(stream.fileno()), DecodeConfig().max_file_bytes
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        data = stream.read(min(found.st_size, most) + 1)
    if max(found.st_size, len(data)) > most:
        raise OSError(errno.EFBIG, f"more than {most:,} bytes", path)
    return data


def read_labelled(
    files: Mapping[str, Sequence[str]],
    view: View,
    *,
    where: str,
    read: Callable[[str], bytes],
    classes: Sequence[str],
) -> Labelled:
    """Read all images of a folder as one square view each; they stay in memory, as bytes.

    Args:
        files: of each class in the folder, their paths.
        view: how a picture becomes a square.
        where: the folder, for messages.
        read: the bytes of a file; an OSError leaves it out.
        classes: the names that the numbers stand for.

    Raises:
        ConfigError: when there is a class that is not among `classes`, or no image.
    """
    if unknown := set(files) - set(classes):
        raise ConfigError(
            f"{where} has classes that the other folder lacks",
            got=", ".join(sorted(unknown)[:5]),
            expected="the same names of folders in both",
        )
    known = {name: number for number, name in enumerate(classes)}
    listed = [(path, known[name]) for name, paths in files.items() for path in paths]
    with ThreadPoolExecutor(NUM_THREADS) as threads:
        views = list(threads.map(lambda item: _view_of(item[0], view, read), listed))
    kept = [(pixels, label) for pixels, (_, label) in zip(views, listed, strict=True) if pixels is not None]
    if not kept:
        raise ConfigError("There is no image to evaluate on", got=where, expected="images in its folders")
    pixels = torch.from_numpy(np.stack([pixels for pixels, _ in kept])).permute(0, 3, 1, 2).contiguous()
    labels = torch.tensor([label for _, label in kept], dtype=torch.int64)
    return Labelled(pixels, labels, tuple(classes), len(listed) - len(kept))


def _view_of(path: str, view: View, read: Callable[[str], bytes]) -> UInt8[np.ndarray, "s s 3"] | None:
    try:
        data = read(path)
    except OSError:
        return None
    decoded = decode(data, need_side_px=view.need_side_px, config=DecodeConfig())
    return None if decoded.pixels is None else render(decoded.pixels, view)
