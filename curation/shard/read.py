"""Read shards by their index: any sample by one positioned read, or all of them in order.

Nothing is guessed from the tar: `index.json` lists the shards, `index/*.parquet` the byte range of every
member. A shard that is not as long as its index says is an error before its first sample is given out.
"""

import hashlib
import json
import uuid
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Int32, Int64

from curation import storage
from curation.errors import IntegrityError, SourceError
from curation.ranges import RangeReader
from curation.shard.layout import TAR_BLOCK_BYTES
from curation.shard.sample import Sample, decode_members

# What `iterate` reads at once: enough to hide an object store's round trip, little beside a decoded batch.
_SPAN_BYTES = 8 << 20
_REMEDY = "Restore the file, or rerun the shard stage"


@dataclass(frozen=True, slots=True)
class Shard:
    """One shard as `index.json` lists it."""

    name: str
    path: str
    index_path: str
    num_samples: int
    num_bytes: int
    sha256: str


@dataclass(frozen=True)
class ShardIndex:
    """The byte range of every member of one shard; sample i has the members first[i] … first[i + 1] - 1."""

    keys: pa.Array
    first: Int64[np.ndarray, "num_samples_plus_1"]
    names: list[str]
    name_code: Int32[np.ndarray, "num_members"]
    offset: Int64[np.ndarray, "num_members"]
    num_bytes: Int64[np.ndarray, "num_members"]

    @cached_property
    def images(self) -> tuple[memoryview, memoryview]:
        """First byte and length of every sample's image, to be asked for one by one: an element of a view is
        an int three times as fast as an array's.
        """
        first = self.first[:-1]
        return memoryview(self.offset[first]).toreadonly(), memoryview(self.num_bytes[first]).toreadonly()


def read_index(shard: Shard) -> ShardIndex:
    """Load the index of a shard, and check that it is the shard's and fits its length.

    Raises:
        IntegrityError: when index, shard list and tar contradict one another.
    """
    table = storage.read_table(shard.index_path)
    proof = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    got = (proof.get("num_samples"), proof.get("num_bytes"), proof.get("sha256"))
    expected = (str(shard.num_samples), str(shard.num_bytes), shard.sha256)
    if got != expected:
        raise IntegrityError(
            f"{shard.index_path} is not the index of {shard.name}", got=got, expected=expected, remedy=_REMEDY
        )
    found = storage.stat(shard.path).num_bytes
    if found != shard.num_bytes:
        raise IntegrityError(
            f"{shard.path} has changed its length", got=found, expected=shard.num_bytes, remedy=_REMEDY
        )
    table = table.unify_dictionaries().combine_chunks()
    sample = table["sample"].to_numpy()
    name = table["name"].chunk(0)
    first = np.searchsorted(sample, np.arange(shard.num_samples + 1)).astype(np.int64)
    return ShardIndex(
        keys=table["key"].take(pa.array(first[:-1])).combine_chunks(),
        first=first,
        names=name.dictionary.to_pylist(),
        name_code=name.indices.to_numpy(),
        offset=table["offset"].to_numpy(),
        num_bytes=table["num_bytes"].to_numpy(),
    )


class ShardReader:
    """Random and sequential access to a dataset's shards, local or remote; safe to share between threads.

    Args:
        root: the dataset's folder (`dataset-<identity>`): a path or a URL.
        max_open: shards whose files are kept open.
        max_indexes: shards whose indexes are held, of about 0.5 MB for 10,000 samples.

    Raises:
        IntegrityError: when `index.json` cannot be understood.
    """

    def __init__(self, root: str, *, max_open: int = 8, max_indexes: int = 256) -> None:
        self.root = root
        path = storage.join(root, "index.json")
        try:
            listing = json.loads(storage.read_bytes(path))
            self.name: str = listing["name"]
            self.shards = tuple(_listed_shard(root, entry) for entry in listing["shardlist"])
        except (ValueError, KeyError, TypeError) as error:
            raise IntegrityError(
                f"{path} is not a list of shards", got=repr(error), expected="a dataset's index.json"
            ) from error
        self._ends = np.cumsum([shard.num_samples for shard in self.shards], dtype=np.int64)
        self._indexes: OrderedDict[int, ShardIndex] = OrderedDict()
        self._max_indexes = max_indexes
        self._ranges = RangeReader(max_open)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def locate(self, row: int) -> tuple[int, int]:
        """The shard of the dataset's sample `row`, and its place within it."""
        if not 0 <= row < len(self):
            raise IndexError(f"sample {row} of {len(self)}")
        shard = int(np.searchsorted(self._ends, row, side="right"))
        return shard, row - int(self._ends[shard]) + self.shards[shard].num_samples

    def index(self, shard: int) -> ShardIndex:
        """The index of a shard, loaded on first use; the least recently loaded one is forgotten."""
        index = self._indexes.get(shard)
        if index is None:
            if not 0 <= shard < len(self.shards):
                raise IndexError(f"shard {shard} of {len(self.shards)}")
            index = self._indexes[shard] = read_index(self.shards[shard])
            while len(self._indexes) > self._max_indexes:
                self._indexes.popitem(last=False)
        return index

    @property
    def is_local(self) -> bool:
        """Whether the operating system reads the shards."""
        return all(storage.is_local(shard.path) for shard in self.shards)

    def image_ranges(self, shard: int) -> tuple[Int64[np.ndarray, "n"], Int64[np.ndarray, "n"]]:
        """First byte and length of every image of a shard, in the order of its samples."""
        offset, num_bytes = self.index(shard).images
        return np.asarray(offset), np.asarray(num_bytes)

    def read_range(self, shard: int, offset: int, num_bytes: int, *, path: str | None = None) -> bytes:
        """Bytes of a shard, or of a copy of it at `path`.

        Raises:
            OSError: when they cannot be read.
        """
        return self._ranges.read(path or self.shards[shard].path, offset, num_bytes)

    def read_image(self, shard: int, sample: int) -> bytes:
        """The bytes of one image, by one positioned read.

        Raises:
            OSError: when they cannot be read.
            IntegrityError: when the shard is not what its index says.
        """
        offset, num_bytes = self.index(shard).images
        if not 0 <= sample < len(offset):
            raise IndexError(f"sample {sample} of {len(offset)} in {self.shards[shard].name}")
        return self._ranges.read(self.shards[shard].path, offset[sample], num_bytes[sample])

    def read(self, shard: int, sample: int) -> Sample:
        """One whole sample, by one positioned read; raises as `read_image` does."""
        return next(self._read_span(shard, sample, sample + 1))

    def iterate(self, start: int = 0, stop: int | None = None) -> Iterator[Sample]:
        """The dataset's samples `start` … `stop` - 1 in order, read in large spans."""
        stop = len(self) if stop is None else min(stop, len(self))
        while start < stop:
            shard, sample = self.locate(start)
            index = self.index(shard)
            begins = index.offset[index.first[:-1]]
            fitting = int(np.searchsorted(begins, begins[sample] + _SPAN_BYTES))
            last = min(max(fitting, sample + 1), sample + stop - start)
            yield from self._read_span(shard, sample, last)
            start += last - sample

    def _read_span(self, shard: int, start: int, stop: int) -> Iterator[Sample]:
        index = self.index(shard)
        if not 0 <= start < stop <= len(index.keys):
            raise IndexError(f"sample {start} of {len(index.keys)} in {self.shards[shard].name}")
        rows = slice(index.first[start], index.first[stop])
        offsets, sizes = index.offset[rows].tolist(), index.num_bytes[rows].tolist()
        names = [index.names[code] for code in index.name_code[rows]]
        base = offsets[0]
        data = self._ranges.read(self.shards[shard].path, base, offsets[-1] + sizes[-1] - base)
        members = [
            (name, data[offset - base : offset - base + size])
            for name, offset, size in zip(names, offsets, sizes, strict=True)
        ]
        bounds = (index.first[start : stop + 1] - index.first[start]).tolist()
        for number, key in enumerate(index.keys[start:stop].to_pylist()):
            yield decode_members(key, members[bounds[number] : bounds[number + 1]])

    def close(self) -> None:
        """Close the shards' files."""
        self._ranges.close()

    def __enter__(self) -> "ShardReader":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _listed_shard(root: str, entry: dict[str, object]) -> Shard:
    name = str(entry["url"])
    return Shard(
        name=name,
        path=storage.join(root, name),
        index_path=storage.join(root, str(entry["index"])),
        num_samples=int(str(entry["nsamples"])),
        num_bytes=int(str(entry["filesize"])),
        sha256=str(entry["sha256"]),
    )


def verify_shard(path: str, *, sha256: str, num_samples: int) -> None:
    """Read a whole shard and prove that it is the one that was written.

    The samples are counted in the tar itself, header by header, in the same pass as the hash.

    Raises:
        IntegrityError: when a hash, a header or the number of samples is wrong, or the tar ends too early.
    """
    digest = hashlib.sha256()
    keys = set()
    with storage.open_stream(path) as stream:
        while True:
            header = stream.read(TAR_BLOCK_BYTES)
            digest.update(header)
            if len(header) < TAR_BLOCK_BYTES:
                raise IntegrityError(
                    f"{path} ends before its end mark", got="a truncated tar", remedy=_REMEDY
                )
            if not any(header):
                break
            key, num_bytes = _parse_header(path, header)
            keys.add(key)
            left = num_bytes + -num_bytes % TAR_BLOCK_BYTES
            while left and (block := stream.read(min(left, _SPAN_BYTES))):
                digest.update(block)
                left -= len(block)
        while block := stream.read(_SPAN_BYTES):
            digest.update(block)
    got = (digest.hexdigest(), len(keys))
    if got != (sha256, num_samples):
        raise IntegrityError(
            f"{path} is not the shard that was written",
            got=got,
            expected=(sha256, num_samples),
            remedy=_REMEDY,
        )


def _parse_header(path: str, header: bytes) -> tuple[str, int]:
    try:
        checksum = sum(header) - sum(header[148:156]) + 8 * ord(" ")
        if checksum != int(header[148:154], 8):
            raise ValueError("checksum")
        name = header[:100].rstrip(b"\0").decode("ascii")
        return name.split(".", 1)[0], int(header[124:135], 8)
    except ValueError as error:
        raise IntegrityError(
            f"{path} has a damaged tar header", got=repr(header[:40]), remedy=_REMEDY
        ) from error


def open_dataset(path: str) -> tuple[ShardReader, str]:
    """Open the dataset that a manifest names.

    Args:
        path: a run directory or its `manifest.json`: a path or a URL.

    Returns:
        A reader, and the SHA-256 over the shards' own, in hex, which names the dataset's content.

    Raises:
        SourceError: when there is no manifest.
        IntegrityError: when the manifest cannot be understood, or the index lists other shards than it does.
    """
    file = path if path.endswith(".json") else storage.join(path, "manifest.json")
    try:
        manifest = json.loads(storage.read_bytes(file))
        root = storage.join(file.rpartition("/")[0] or ".", manifest["dataset_dir"])
        listed = [(entry["path"].rpartition("/")[2], entry["sha256"]) for entry in manifest["shards"]]
    except FileNotFoundError as error:
        raise SourceError(
            f"There is no dataset at {storage.redact(path)}",
            got="no manifest.json",
            expected="the directory of a finished run, or its manifest.json",
            remedy="Curate first: lvd run CONFIG",
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError(f"{file} is no manifest", got=repr(error), remedy=_REMEDY) from error
    reader = ShardReader(root)
    found = [(shard.name, shard.sha256) for shard in reader.shards]
    if found != listed:
        raise IntegrityError(
            f"{root}/index.json lists other shards than {file}",
            got=f"{len(found)} shards",
            expected=f"the {len(listed)} of the manifest",
            remedy=_REMEDY,
        )
    return reader, hashlib.sha256("".join(sha256 for _, sha256 in listed).encode()).hexdigest()


def fetch_shard(shard: Shard, target: Path) -> None:
    """Copy a shard to a local file, whole or not at all, and check its hash on the way.

    Raises:
        IntegrityError: when its bytes are not those that were written.
        OSError: when they cannot be read.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temp = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    digest = hashlib.sha256()
    try:
        with storage.open_stream(shard.path) as stream, temp.open("wb") as out:
            while block := stream.read(_SPAN_BYTES):
                digest.update(block)
                out.write(block)
        if digest.hexdigest() != shard.sha256:
            raise IntegrityError(
                f"{storage.redact(shard.path)} is not the shard that was written",
                got=digest.hexdigest(),
                expected=shard.sha256,
                remedy=_REMEDY,
            )
        temp.rename(target)
    finally:
        temp.unlink(missing_ok=True)
