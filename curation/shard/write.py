"""Write a shard: a tar, its SHA-256, and an index of the byte range of every member.

Equal samples give equal tars. A second thread hashes what the first one writes; both work on the samples' own
buffers, and nothing is copied on the way to the kernel.
"""

import hashlib
import json
import os
import queue
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import pyarrow as pa

from curation.errors import IntegrityError
from curation.shard.sample import INDEX, Sample, encode_members, index_name
from curation.tar_headers import BLOCK_BYTES, tar_bytes, tar_header

_FLUSH_BYTES = 8 << 20
_SMALL_BYTES = 4 << 10
_MAX_PIECES = 1_020  # IOV_MAX is 1,024 on Linux


@dataclass(frozen=True, slots=True)
class ShardReceipt:
    """What was written: the proof for the manifest, and the index for readers."""

    name: str
    num_samples: int
    num_bytes: int
    sha256: str
    index: pa.Table  # sample.INDEX; published as `index_name(name)` beside the shards


class _HashedFile:
    """A new file that a second thread hashes while this one writes it."""

    def __init__(self, path: str | Path) -> None:
        self._handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        self._digest = hashlib.sha256()
        self._queue: queue.Queue[list[bytes] | None] = queue.Queue(maxsize=2)
        self._thread = threading.Thread(target=self._hash, name="shard-sha256", daemon=True)
        self._pieces: list[bytes] = []
        self._small: list[bytes] = []
        self._pending_bytes = 0
        self.num_bytes = 0

    def __enter__(self) -> "_HashedFile":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: BaseException | TracebackType | None) -> None:
        try:
            if kind is None:
                self._flush()
        finally:
            self._queue.put(None)
            self._thread.join()
            os.close(self._handle)

    def _hash(self) -> None:
        while (pieces := self._queue.get()) is not None:
            for piece in pieces:
                self._digest.update(piece)  # lets go of the interpreter for all but the smallest pieces

    def write(self, piece: bytes) -> None:
        """Append `piece`, soon."""
        self._pending_bytes += len(piece)
        self.num_bytes += len(piece)
        # Headers, JSON and padding are glued together: over each piece the threads fight for the interpreter.
        if len(piece) < _SMALL_BYTES:
            self._small.append(piece)
        else:
            self._pieces += (b"".join(self._small), piece)
            self._small = []
        if self._pending_bytes >= _FLUSH_BYTES or len(self._pieces) >= _MAX_PIECES:
            self._flush()

    def _flush(self) -> None:
        pieces, expected = [*self._pieces, b"".join(self._small)], self._pending_bytes
        self._pieces, self._small, self._pending_bytes = [], [], 0
        self._queue.put(pieces)
        written = os.writev(self._handle, pieces)
        if written < expected:  # a nearly full disk; the next write says what it is
            rest = memoryview(b"".join(pieces))[written:]
            while rest:
                rest = rest[os.write(self._handle, rest) :]

    def hexdigest(self) -> str:
        """The SHA-256 of everything written; asked for when the file is closed."""
        return self._digest.hexdigest()


def write_shard(
    local_path: str | Path, samples: Iterable[Sample], *, name: str | None = None
) -> ShardReceipt:
    """Write one shard to a local file, in the order given; the caller publishes it.

    Args:
        local_path: a temporary file.
        samples: the samples, each key once.
        name: the shard's file name once published; that of `local_path` when None.

    Raises:
        IntegrityError: for a key that comes twice (readers would melt the two into one), or no sample at all.
        ConfigError: for a sample that no tar can hold.
        OSError: as the operating system says (disk full, …).
    """
    name = name or Path(local_path).name
    keys: set[str] = set()
    rows: list[tuple[int, str, str, int, int]] = []
    with _HashedFile(local_path) as out:
        for position, sample in enumerate(samples):
            if sample.key in keys:
                raise IntegrityError(
                    f"{name} would hold a key twice", got=sample.key, remedy="Collapse equal image ids first"
                )
            keys.add(sample.key)
            for member, data in encode_members(sample):
                out.write(tar_header(f"{sample.key}.{member}", len(data)))
                rows.append((position, sample.key, member, out.num_bytes, len(data)))
                out.write(data)
                if padding := -len(data) % BLOCK_BYTES:
                    out.write(bytes(padding))
        if not keys:
            raise IntegrityError(f"{name} would be empty", expected="at least one sample")
        out.write(bytes(tar_bytes(out.num_bytes) - out.num_bytes))
    proof = {"shard": name, "num_samples": str(len(keys)), "num_bytes": str(out.num_bytes)}
    schema = INDEX.with_metadata(proof | {"sha256": out.hexdigest()})
    columns = zip(zip(*rows, strict=True), INDEX.types, strict=True)
    index = pa.Table.from_arrays([pa.array(column, kind) for column, kind in columns], schema=schema)
    return ShardReceipt(name, len(keys), out.num_bytes, out.hexdigest(), index)


def index_json(name: str, receipts: Sequence[ShardReceipt]) -> bytes:
    """The shard list in the form that wids reads, each shard with its SHA-256 and index besides.

    Args:
        name: of the dataset.
        receipts: of its shards, in order.
    """
    shards = [
        {
            "url": receipt.name,
            "nsamples": receipt.num_samples,
            "filesize": receipt.num_bytes,
            "sha256": receipt.sha256,
            "index": index_name(receipt.name),
        }
        for receipt in receipts
    ]
    listing = {"wids_version": 1, "name": name, "shardlist": shards}
    return (json.dumps(listing, ensure_ascii=False, indent=1) + "\n").encode()
