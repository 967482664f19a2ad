"""Read shards by their index: any sample by one positioned read, or all of them in order.

Nothing is guessed from the tar: `index.json` lists the shards, `index/*.parquet` the byte range of every
member. A shard that is not as long as its index says is an error before its first sample is given out.
"""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from curation import storage
from curation.errors import IntegrityError, SourceError
from curation.hashes import Hashes, stamp_of
from curation.local_files import temporary_name
from curation.ranges import RangeReader
from curation.shard.index import REMEDY, Shard, ShardIndex, listed_shard, not_written, read_index
from curation.shard.manifest import parse_manifest
from curation.shard.sample import Sample, decode_members
from curation.tar_headers import BLOCK_BYTES, padded, parse_header

# What `iterate` reads at once: enough to hide an object store's round trip, little beside a decoded batch.
_SPAN_BYTES = 8 << 20


class ShardReader:
    """Random and sequential access to a dataset's shards, local or remote; safe to share between threads.

    Args:
        root: the dataset's folder (`dataset-<identity>`): a path or a URL.
        max_open: shards whose files are kept open.
        max_indexes: shards whose indexes are held, of about 0.5 MB for 10,000 samples.
        proof: SHA-256 of the list of shards and of their indexes, by path below `root`, as far as known.
        record: where hashes of shards are remembered (see `curation.hashes`).

    Raises:
        IntegrityError: when `index.json` cannot be understood, or is another than `proof` has.
    """

    def __init__(
        self,
        root: str,
        *,
        max_open: int = 8,
        max_indexes: int = 256,
        proof: Mapping[str, str] | None = None,
        record: Path | None = None,
    ) -> None:
        self.root, self.proof, self.hashes = root, dict(proof or {}), Hashes(record)
        path = storage.join(root, "index.json")
        text = storage.read_bytes(path)
        expected = self.proof.get("index.json")
        if expected is not None and hashlib.sha256(text).hexdigest() != expected:
            raise not_written(path, "list of shards", expected=expected)
        try:
            listing = json.loads(text)
            self.name: str = listing["name"]
            self.shards = tuple(listed_shard(root, entry, self.proof) for entry in listing["shardlist"])
        except (ValueError, KeyError, TypeError) as error:
            raise IntegrityError(
                f"{path} is not a list of shards", got=repr(error), expected="a dataset's index.json"
            ) from error
        self._ends = np.cumsum([shard.num_samples for shard in self.shards], dtype=np.int64)
        self._indexes: OrderedDict[int, ShardIndex] = OrderedDict()
        self._max_indexes = max_indexes
        self._ranges = RangeReader(max_open)
        self._stamps: dict[str, str] = {}  # of shards as they were when their hash was right

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
            index = self._indexes[shard] = read_index(self.shards[shard], self.hashes)
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

    def is_sound(self, shard: int, *, path: str | None = None) -> bool:
        """Whether a shard, or a copy of it at `path`, is there and has the bytes that were written.

        It is hashed once, and again when it has changed.

        Raises:
            OSError: when it cannot be read.
        """
        path = path or self.shards[shard].path
        try:
            stamp = stamp_of(path)
        except FileNotFoundError:
            return False
        if self._stamps.get(path) != stamp:
            self._ranges.forget(path)
            if not self.hashes.holds(path, self.shards[shard].sha256):
                return False
            self._stamps[path] = stamp
        return True

    def require_sound(self, shard: int) -> None:
        """See that a shard has the bytes that were written.

        Raises:
            IntegrityError: when it has not, or is gone.
        """
        if not self.is_sound(shard):
            listed = self.shards[shard]
            raise not_written(listed.path, "shard", expected=listed.sha256)

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
            IntegrityError: when the shard is not what its index says, or the image is not the one of its key.
        """
        offset, num_bytes = self.index(shard).images
        if not 0 <= sample < len(offset):
            raise IndexError(f"sample {sample} of {len(offset)} in {self.shards[shard].name}")
        data = self._ranges.read(self.shards[shard].path, offset[sample], num_bytes[sample])
        sha256, key = hashlib.sha256(data).hexdigest(), self.index(shard).keys[sample].as_py()
        # A picture that was changed on its way into the shard keeps its key, and KEY.json has its hash.
        if not sha256.startswith(key) and self.read(shard, sample).meta.get("content_sha256") != sha256:
            raise not_written(
                f"{self.shards[shard].path}, image {key}", "image", expected="the one of its key"
            )
        return data

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
            header = stream.read(BLOCK_BYTES)
            digest.update(header)
            if len(header) < BLOCK_BYTES:
                raise IntegrityError(f"{path} ends before its end mark", got="a truncated tar", remedy=REMEDY)
            if not any(header):
                break
            try:
                found = parse_header(header)
            except ValueError as error:
                start = repr(header[:40])
                raise IntegrityError(f"{path} has a damaged tar header", got=start, remedy=REMEDY) from error
            keys.add(found.name.split(".", 1)[0])
            left = padded(found.num_bytes)
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
            remedy=REMEDY,
        )


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
        root, listed, proof = _listed_files(file)
    except FileNotFoundError as error:
        raise SourceError(
            f"There is no dataset at {storage.redact(path)}",
            got="no manifest.json",
            expected="the directory of a finished run, or its manifest.json",
            remedy="Curate first: lvd run CONFIG",
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError(f"{file} is no manifest", got=repr(error), remedy=REMEDY) from error
    reader = ShardReader(root, proof=proof)
    if (found := [(shard.name, shard.sha256) for shard in reader.shards]) != listed:
        raise IntegrityError(
            f"{root}/index.json lists other shards than {file}",
            got=f"{len(found)} shards",
            expected=f"the {len(listed)} of the manifest",
            remedy=REMEDY,
        )
    return reader, hashlib.sha256("".join(sha256 for _, sha256 in listed).encode()).hexdigest()


def _listed_files(file: str) -> tuple[str, list[tuple[str, str]], dict[str, str]]:
    """The folder of a manifest's dataset; the SHA-256 of its shards, and of its other files by path below."""
    manifest = parse_manifest(storage.read_bytes(file), where=file, remedy=REMEDY)
    root = storage.join(file.rpartition("/")[0] or ".", manifest["dataset_dir"])
    shards = [(entry["path"].rpartition("/")[2], entry["sha256"]) for entry in manifest["shards"]]
    within = f"{manifest['dataset_dir']}/"
    others = manifest.get("files", ())  # manifests of earlier versions list none
    found = ((entry["path"], entry["sha256"]) for entry in others if entry["path"].startswith(within))
    return root, shards, {path.removeprefix(within): sha256 for path, sha256 in found}


def fetch_shard(shard: Shard, target: Path) -> None:
    """Copy a shard to a local file, whole or not at all, and check its hash on the way.

    Raises:
        IntegrityError: when it is missing, or its bytes are not those that were written.
        OSError: when they cannot be read.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temp = temporary_name(target)
    digest = hashlib.sha256()
    try:
        with storage.open_stream(shard.path) as stream, temp.open("wb") as out:
            while block := stream.read(_SPAN_BYTES):
                digest.update(block)
                out.write(block)
        if digest.hexdigest() != shard.sha256:
            raise not_written(shard.path, "shard", expected=shard.sha256)
        temp.rename(target)
    except FileNotFoundError as error:
        if storage.exists(shard.path):
            raise
        raise IntegrityError(
            f"A shard of the dataset is missing: {shard.path}",
            expected=f"{shard.num_bytes:,} bytes, as the dataset's index says",
            remedy="Copy it there again, or run the curation again, which makes it anew",
        ) from error
    finally:
        temp.unlink(missing_ok=True)
