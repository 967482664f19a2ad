"""Images of somebody else's tars on this machine's disks: indexed once, then read by row as our own are."""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from curation.errors import IntegrityError, SourceError
from curation.hashes import Hashes
from curation.ingest.tars.tar_format import TarWalk
from curation.local_reads import open_regular
from curation.printed import redact
from curation.ranges import RangeReader
from pretrain.data.order import FullShuffle, Order
from pretrain.data.places import Ranges, keep_bytes, kept_file, open_places, write_places
from pretrain.data.tar_listing import IMAGE_EXTENSIONS, extension_of, is_image

_MAX_OPEN = 256  # a shuffle goes from tar to tar
_MAX_MEMBER_BYTES = 2**31 - 1  # what a place has room for
_NOT_TARS = ("not_a_tar", "compressed", "empty_file", "unreadable")  # the rest is a tar up to some place
_TOLD = 5


@dataclass(frozen=True, slots=True)
class _Walked:
    """One tar: where its images lie, and what it was."""

    ranges: Ranges
    digest: str
    others: dict[str, int]  # extensions of members that are not taken
    problem: str | None


@dataclass(frozen=True, slots=True)
class _Index:
    """What is known of all tars beside the places of their images."""

    digest: str
    others: dict[str, int]
    problems: list[str]


class TarImages:
    """Random access to the images of plain local tars; safe to send to a worker process.

    A pass over the headers, once, tells where every image lies. So any step can be made without those before
    it, which a reader that goes through the tars cannot do.

    Args:
        name: the pattern, for people.
        paths: of the tars, in order.
        extensions: of the members that are images.
        cache: a folder for the index; beside it is remembered that it is whole.
        threads: tars that are indexed at a time.
        say: is told what was not taken.

    Attributes:
        digest: the SHA-256 over the names of the tars and the names, places and lengths of their images. A
            copy of the tars has the same; one whose bytes alone were changed, at the same lengths, has too.

    Raises:
        SourceError: when a file is no tar, or none has an image.
    """

    is_exact = True
    reads_wait = False

    def __init__(
        self,
        name: str,
        paths: Sequence[str],
        *,
        extensions: Sequence[str],
        cache: Path,
        threads: int,
        say: Callable[[str], object],
    ) -> None:
        self.name, self._paths = redact(name), tuple(paths)
        self._versions = tuple(_version(path) for path in self._paths)
        made_of = json.dumps([self._paths, self._versions, list(extensions)])
        key = f"tars-{hashlib.sha256(made_of.encode('utf-8', 'surrogateescape')).hexdigest()[:16]}"
        hashes = Hashes(cache.parent / "hashes.jsonl")
        with hashes.alone(str(cache / key)):
            places = kept_file(cache, key, "npy", hashes)
            index = kept_file(cache, key, "json", hashes)
            if places is None or index is None:
                say(f"indexing {len(self._paths):,} tars of {self.name}")
                walked = _walk_all(self._paths, extensions, threads=threads)
                _require_images(walked, self.name, extensions)
                places, index = _keep(walked, self._paths, cache, key, hashes)
        self._index = _Index(**json.loads(index.read_text()))
        self.digest = self._index.digest
        self._places_path, self._places = places, open_places(places)
        self._ranges = RangeReader(_MAX_OPEN)
        for problem in self._index.problems[:_TOLD]:
            say(f"{problem}; the images before that are trained on")
        if (num_more := len(self._index.problems) - _TOLD) > 0:
            say(f"{num_more:,} more tars are damaged")

    def __len__(self) -> int:
        return len(self._places)

    def __getstate__(self) -> dict[str, Any]:
        """A worker opens and maps the files itself."""
        return {**self.__dict__, "_places": None, "_ranges": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._places, self._ranges = open_places(self._places_path), RangeReader(_MAX_OPEN)

    @property
    def num_images(self) -> int:
        """How many there are."""
        return len(self)

    def describe(self) -> str:
        """One line for people; extensions that were left out are named."""
        line = f"{self.name}: {len(self):,} images in {len(self._paths):,} tars, indexed; resumes exactly"
        images = {ext: num for ext, num in self._index.others.items() if _may_be_image(ext)}
        told = ", ".join(f"{num:,} .{ext}" for ext, num in sorted(images.items())[:_TOLD])
        return f"{line}; not taken (data.extensions): {told}" if told else line

    def order(self, *, seed: int, window_images: int) -> Order:  # noqa: ARG002 — of all kinds of datasets
        """A full shuffle."""
        return FullShuffle(len(self), seed=seed)

    def spooled_bytes(self, window_images: int) -> int:  # noqa: ARG002
        """Nothing: the tars lie here."""
        return 0

    def read(self, row: int) -> bytes:
        """The bytes of one image.

        Raises:
            OSError: when they cannot be read.
            IntegrityError: when the tar is not the one that was indexed.
        """
        place = self._places[row]
        shard = int(place["shard"])
        self._require_unchanged(shard)
        return self._ranges.read(self._paths[shard], int(place["offset"]), int(place["num_bytes"]))

    def _require_unchanged(self, shard: int) -> None:
        path = self._paths[shard]
        try:
            found = _version(path)
        except SourceError as error:
            raise IntegrityError(
                f"{path} is gone, while it is trained on", remedy="Bring it back, and run the command again"
            ) from error
        if found != self._versions[shard]:
            raise IntegrityError(
                f"{path} was changed while it is trained on",
                got=f"{found} (time and size)",
                expected=f"{self._versions[shard]}, as it was when it was indexed",
                remedy="Run the command again: it indexes the tars anew, and goes on if they hold the same "
                "images at the same places",
            )


def _version(path: str) -> str:
    """When a tar was written, and its size: not what changes with a copy, an owner or a link to it."""
    try:
        found = os.stat(path)  # noqa: PTH116 — for every image that is read
    except FileNotFoundError as error:
        raise SourceError(f"There is no tar {path}") from error
    return f"{found.st_mtime_ns}-{found.st_size}"


def _walk_all(paths: Sequence[str], extensions: Sequence[str], *, threads: int) -> list[_Walked]:
    taken = frozenset(extensions)
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda path: _walk(path, taken), paths))


def _walk(path: str, extensions: frozenset[str]) -> _Walked:
    """Read the headers of a tar."""
    handle, size = open_regular(path)
    try:
        walk = TarWalk(path, size).run(lambda offset, num_bytes: os.pread(handle, num_bytes, offset))
    finally:
        os.close(handle)
    problem = walk.problems[0] if walk.problems else None
    if problem is not None and problem.what in _NOT_TARS:
        raise SourceError(
            f"{path} is no tar that can be read by its members",
            got=problem.detail,
            expected="a plain tar",
            remedy="Leave it out of data.path, or name it for what it is (.tar.gz)",
        )
    ends = [member for member in walk.members if member.offset + member.num_bytes <= size]
    images = [m for m in ends if is_image(m.name, tuple(extensions)) and m.num_bytes <= _MAX_MEMBER_BYTES]
    digest = hashlib.sha256()
    for member in images:
        digest.update(
            f"{member.name}\0{member.offset}\0{member.num_bytes}\n".encode(errors="surrogateescape")
        )
    others: dict[str, int] = {}
    for member in ends:
        if (extension := extension_of(member.name)) not in extensions:
            others[extension] = others.get(extension, 0) + 1
    offsets = np.array([member.offset for member in images], dtype=np.int64)
    sizes = np.array([member.num_bytes for member in images], dtype=np.int64)
    told = f"{path} is damaged from byte {problem.offset or 0:,} on: {problem.detail}" if problem else None
    return _Walked((offsets, sizes), digest.hexdigest(), others, told)


def _require_images(walked: Sequence[_Walked], name: str, extensions: Sequence[str]) -> None:
    if any(len(one.ranges[0]) for one in walked):
        return
    found = sorted(_sum(walked).items(), key=lambda item: (-item[1], item[0]))
    told = ", ".join(f"{num:,} .{extension}" for extension, num in found[:_TOLD])
    raise SourceError(
        f"No member of {name} is an image by its name",
        got=told or "no members",
        expected=f"one of {', '.join(extensions)} after the first dot",
        remedy="Name the extensions of the images in data.extensions",
    )


def _keep(
    walked: Sequence[_Walked], paths: Sequence[str], cache: Path, key: str, hashes: Hashes
) -> tuple[Path, Path]:
    num_images = sum(len(one.ranges[0]) for one in walked)
    places = write_places(cache, key, (one.ranges for one in walked), num_images=num_images, hashes=hashes)
    named = [[Path(path).name, one.digest] for path, one in zip(paths, walked, strict=True)]
    index = _Index(
        digest=hashlib.sha256(json.dumps(named).encode()).hexdigest(),
        others=_sum(walked),
        problems=[one.problem for one in walked if one.problem],
    )
    return places, keep_bytes(cache, key, "json", json.dumps(asdict(index)).encode(), hashes)


def _sum(walked: Sequence[_Walked]) -> dict[str, int]:
    total: dict[str, int] = {}
    for one in walked:
        for extension, num in one.others.items():
            total[extension] = total.get(extension, 0) + num
    return total


def _may_be_image(extension: str) -> bool:
    """Whether somebody may have meant it to be taken: `seg.png`, and `2.jpg` of a name with a dot in it."""
    return extension.rpartition(".")[2] in IMAGE_EXTENSIONS
