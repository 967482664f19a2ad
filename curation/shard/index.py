"""The list of a dataset's shards, and the index of each: where every member lies within its tar."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
from jaxtyping import Int32, Int64

from curation import storage
from curation.errors import IntegrityError
from curation.hashes import Hashes

REMEDY = "Restore the file, or rerun the shard stage"


@dataclass(frozen=True, slots=True)
class Shard:
    """One shard as `index.json` lists it."""

    name: str
    path: str
    index_path: str
    num_samples: int
    num_bytes: int
    sha256: str
    index_sha256: str | None = None  # where the manifest tells it


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


def read_index(shard: Shard, hashes: Hashes) -> ShardIndex:
    """Load the index of a shard, and check that it is the shard's and fits its length.

    Raises:
        IntegrityError: when its bytes are others, or index, shard list and tar contradict one another.
    """
    if shard.index_sha256 is not None and not hashes.holds(shard.index_path, shard.index_sha256):
        raise not_written(shard.index_path, "index", expected=shard.index_sha256)
    table = storage.read_table(shard.index_path)
    proof = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    got = (proof.get("num_samples"), proof.get("num_bytes"), proof.get("sha256"))
    expected = (str(shard.num_samples), str(shard.num_bytes), shard.sha256)
    if got != expected:
        raise IntegrityError(
            f"{shard.index_path} is not the index of {shard.name}", got=got, expected=expected, remedy=REMEDY
        )
    found = storage.stat(shard.path).num_bytes
    if found != shard.num_bytes:
        raise IntegrityError(
            f"{shard.path} has changed its length", got=found, expected=shard.num_bytes, remedy=REMEDY
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


def listed_shard(root: str, entry: dict[str, object], proof: Mapping[str, str]) -> Shard:
    """A shard of the list in `index.json`.

    Args:
        root: the dataset's folder.
        entry: of the list.
        proof: SHA-256 of indexes by path below `root`, as far as known.
    """
    name = str(entry["url"])
    return Shard(
        name=name,
        path=storage.join(root, name),
        index_path=storage.join(root, str(entry["index"])),
        num_samples=int(str(entry["nsamples"])),
        num_bytes=int(str(entry["filesize"])),
        sha256=str(entry["sha256"]),
        index_sha256=proof.get(str(entry["index"])),
    )


def not_written(path: str, what: str, *, expected: object) -> IntegrityError:
    """The error for a file of a dataset whose bytes are others."""
    return IntegrityError(
        f"{storage.redact(path)} is not the {what} that was written",
        got="other bytes, or none",
        expected=expected,
        remedy="Run the config of the dataset again: it is put right; or restore the file",
    )
