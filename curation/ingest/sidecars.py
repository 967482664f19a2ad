"""Which files belong to one sample, and which of them accompany an image.

A file is a sidecar when its extension is on the source's list (`json`, `txt`, …), it is no larger than the
source's cap, and it lies beside an image whose stem it begins with: `a.jpg` takes `a.txt` and `a.seg.json`.
Every other file counts as an image; whether it is one is for its content to say, at describe.

The stem of an image is its name up to the *last* dot. webdataset cuts at the first one, so that `img.v1.jpg`
and `img.v2.jpg` become one sample of which one picture is lost; here the first dot only says which files may
belong together (`sample_key`), and each image stays a row of its own.
"""

from collections.abc import Container, Sequence
from dataclasses import dataclass

from curation.ingest.problems import Problem

# Arrays travel too: their bytes are carried along and never parsed.
DEFAULT_EXTENSIONS = ("caption", "cls", "json", "label", "npy", "npz", "txt", "xml", "yaml", "yml")
# The sidecars of one stem, counted for each image that takes them: so many, and so many times the cap of one.
MAX_SIDECARS = 256
_MAX_TIMES_ONE = 4


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A whole file or a member of a tar: its name, and where its bytes lie."""

    name: str  # relative to the source, or within the tar
    path: str
    offset: int
    num_bytes: int


@dataclass(frozen=True, slots=True)
class SidecarRule:
    """What a source takes for a sidecar."""

    extensions: tuple[str, ...]  # lower case, without the dot
    max_bytes: int

    def admits(self, name: str, num_bytes: int) -> bool:
        """Whether a file of this name and size may be a sidecar."""
        dot = name.rfind(".")
        return (
            dot > _first_letter(name)
            and name[dot + 1 :].lower() in self.extensions
            and num_bytes <= self.max_bytes
        )


def _first_letter(name: str) -> int:
    """Where the basename starts, after the dots of a hidden file."""
    start = name.rfind("/") + 1
    while name.startswith(".", start):
        start += 1
    return start


def stem(name: str) -> str:
    """The name up to the last dot of its basename; a hidden file's leading dots are no such dot."""
    dot = name.rfind(".")
    return name[:dot] if dot > _first_letter(name) else name


def sample_key(name: str) -> str:
    """The name up to the first dot of its basename: files that may form a sample have this in common."""
    dot = name.find(".", _first_letter(name))
    return name if dot < 0 else name[:dot]


def taker_stem(name: str, stems: Container[str]) -> str | None:
    """The longest of the images' stems that a sidecar begins with; None where it begins with none."""
    dot, start = name.rfind("."), _first_letter(name)
    while dot > start and name[:dot] not in stems:
        dot = name.rfind(".", 0, dot)
    return name[:dot] if dot > start else None


Sidecar = tuple[str, StoredFile]  # name within the sample ("txt", "seg.json"), file
Paired = tuple[StoredFile, list[Sidecar]]


@dataclass(frozen=True, slots=True)
class SidecarGroup:
    """Files that belong together: images with their sidecars, and what has no image or no room."""

    images: list[Paired]
    alone: list[StoredFile]  # sidecars that found no image
    left_out: list[StoredFile]  # sidecars beyond what an image may have


def pair_sidecars(files: Sequence[StoredFile], rule: SidecarRule) -> SidecarGroup:
    """Hang the sidecars of a sample on its images.

    A sidecar goes to the image with the longest stem that it begins with, and to each of them where images
    share that stem (`a.jpg` and `a.png` both take `a.json`).

    Returns:
        The images, their sidecars and the rest, each in the order of `files`.
    """
    images: list[Paired] = []
    candidates: list[StoredFile] = []
    for file in files:
        if rule.admits(file.name, file.num_bytes):
            candidates.append(file)
        else:
            images.append((file, []))
    by_stem: dict[str, list[list[Sidecar]]] = {}
    for image, sidecars in images:
        by_stem.setdefault(stem(image.name), []).append(sidecars)
    found: dict[str, list[Sidecar]] = {}
    alone, left_out = [], []
    for file in candidates:
        taker = taker_stem(file.name, by_stem)
        if taker is None:
            alone.append(file)
        else:
            found.setdefault(taker, []).append((file.name[len(taker) + 1 :], file))
    for name, sidecars in found.items():
        takers = by_stem[name]
        kept, beyond = limit_sidecars(sidecars, rule, num_images=len(takers))
        left_out += beyond
        for theirs in takers:
            theirs.extend(kept)
    return SidecarGroup(images, alone, left_out)


def limit_sidecars(
    sidecars: list[Sidecar], rule: SidecarRule, *, num_images: int
) -> tuple[list[Sidecar], list[StoredFile]]:
    """What images of one stem may have of their sidecars: in the order of names, each that still fits.

    Returns:
        Those that stay, and the files of the others, both in the order given.
    """
    num_left, bytes_left = MAX_SIDECARS // num_images, _MAX_TIMES_ONE * rule.max_bytes // num_images
    stays: set[int] = set()
    for number in sorted(range(len(sidecars)), key=lambda number: sidecars[number][0]):
        num_bytes = sidecars[number][1].num_bytes
        if num_left and num_bytes <= bytes_left:
            stays.add(number)
            num_left, bytes_left = num_left - 1, bytes_left - num_bytes
    kept = [sidecar for number, sidecar in enumerate(sidecars) if number in stays]
    return kept, [file for number, (_, file) in enumerate(sidecars) if number not in stays]


def left_out_note(path: str, left_out: Sequence[StoredFile], rule: SidecarRule) -> Problem:
    """The note on sidecars beyond what an image may have."""
    detail = (
        f"{len(left_out)} sidecars are left out, the first {left_out[0].name[:200]!a}: those of one "
        f"image may be {MAX_SIDECARS} and {_MAX_TIMES_ONE * rule.max_bytes} bytes, images of a stem together"
    )
    return Problem(path, "long_sidecar", detail)
