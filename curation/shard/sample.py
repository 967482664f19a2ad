"""A sample as it stands in a shard: `KEY.EXT`, `KEY.json`, and its sidecars as `KEY.NAME`.

A sidecar's bytes are untouched. Where its name would break a reader it is stored under another (`source.json`
for `json`, which is our own; otherwise `sidecar.N`), and `KEY.json` maps every stored name to the name it
had: `"sidecars": {"source.json": "json", "txt": "txt"}`. Reading gives the names back.
"""

import itertools
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from curation.errors import ConfigError
from curation.tar_headers import MAX_NAME_BYTES, member_bytes

KEY_LENGTH = 32
META_NAME = "json"
_MOVED_META_NAME = "source.json"

# What webdataset, wids and datasets read alike. Not "__…": webdataset keeps such names for itself.
_PLAIN_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9_-])?")
_PLAIN_EXT = re.compile(r"[a-z0-9]{1,8}")
_KEY = re.compile(rf"[0-9a-f]{{{KEY_LENGTH}}}")

_encode_json = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
).encode

# One row for every member, in order of offset: of each sample the image, KEY.json, then the sidecars.
INDEX = pa.schema(
    [
        pa.field("sample", pa.int32(), nullable=False),  # position within the shard
        pa.field("key", pa.string(), nullable=False),
        pa.field("name", pa.dictionary(pa.int32(), pa.string()), nullable=False),  # "jpg", "json", "txt", …
        pa.field("offset", pa.int64(), nullable=False),  # of the member's first byte within the tar
        pa.field("num_bytes", pa.int64(), nullable=False),
    ]
)


@dataclass(frozen=True, slots=True)
class Sample:
    """One image: its bytes, what is known of it, and what came along with it."""

    key: str  # the image id
    ext: str  # jpg, png, webp, …
    data: bytes
    meta: dict[str, Any]  # becomes KEY.json; "sidecars" is added in writing and taken out in reading
    sidecars: dict[str, bytes] = field(default_factory=dict)


def index_name(shard: str) -> str:
    """Where the index of a shard lies, relative to the dataset's folder: `index/NAME-000000.parquet`."""
    return f"index/{shard.removesuffix('.tar')}.parquet"


def encode_meta(meta: Mapping[str, Any]) -> bytes:
    """`meta` as JSON in UTF-8: keys sorted, no spaces, floats by `repr`; equal values give equal bytes.

    Raises:
        ValueError: for a NaN or an infinity, which JSON does not have.
    """
    # Lone surrogates stand for undecodable bytes of a file's name. UTF-8 has no place for them, but
    # JSON's own escape, which `backslashreplace` happens to write, does.
    return _encode_json(meta).encode("utf-8", "backslashreplace")


def stored_names(ext: str, sidecars: Iterable[str]) -> dict[str, str]:
    """Name every sidecar so that each reader finds it: stored name → name it had, in order of writing.

    A name is changed when it is not plain (letters, digits, `.`, `_`, `-`), too long for a USTAR header, or
    equal but for case (webdataset lowers names) to another member of the sample.
    """
    names: dict[str, str] = {}
    taken = {ext, META_NAME}
    moved = []
    for had in sorted(sidecars):
        if _is_plain(had) and had.lower() not in taken:
            names[had] = had
            taken.add(had.lower())
        else:
            moved.append(had)
    spare = (f"sidecar.{number}" for number in itertools.count())
    for had in moved:
        wish = _MOVED_META_NAME if had == META_NAME else next(spare)
        stored = next(name for name in itertools.chain([wish], spare) if name not in taken)
        names[stored] = had
        taken.add(stored)
    return names


def _is_plain(name: str) -> bool:
    return bool(_PLAIN_NAME.fullmatch(name)) and len(name) < MAX_NAME_BYTES - KEY_LENGTH


def encode_members(sample: Sample) -> list[tuple[str, bytes]]:
    """The files of a sample, by stored name, in order of writing.

    Raises:
        ConfigError: for a key or an extension that no shard can hold.
    """
    assert "sidecars" not in sample.meta
    if not _KEY.fullmatch(sample.key) or not _PLAIN_EXT.fullmatch(sample.ext) or sample.ext == META_NAME:
        raise ConfigError(
            "A sample has a key or an extension that no shard can hold",
            got=f"{sample.key!r} and {sample.ext!r}",
            expected="32 hexadecimal digits, and the extension of an image in lower case",
        )
    names = stored_names(sample.ext, sample.sidecars)
    meta = {**sample.meta, "sidecars": names} if names else sample.meta
    members = [(sample.ext, sample.data), (META_NAME, encode_meta(meta))]
    members += [(stored, sample.sidecars[had]) for stored, had in names.items()]
    return members


def decode_members(key: str, members: list[tuple[str, bytes]]) -> Sample:
    """The sample whose files these are: the inverse of `encode_members`."""
    (ext, data), (_, encoded), *rest = members
    meta = json.loads(encoded)
    names = meta.pop("sidecars", {})
    return Sample(key, ext, data, meta, {names[stored]: content for stored, content in rest})


def sample_bytes(sample: Sample) -> int:
    """Bytes that a sample takes in a tar, the tar's own end apart."""
    return sum(member_bytes(len(data)) for _, data in encode_members(sample))
