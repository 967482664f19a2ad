"""`manifest.json` as it is read: one that is damaged tells nobody anything."""

from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict, cast

from curation.errors import IntegrityError
from curation.schema import Stage
from curation.sealed import unseal

MANIFEST_SCHEMA = 1


class Entry(TypedDict):
    """A file of the dataset: its path below the run directory, and what kinds of file have of the rest."""

    path: str
    sha256: str
    bytes: NotRequired[int]
    rows: NotRequired[int]
    num_samples: NotRequired[int]


# What a stage made of a pool: rows in and out, and how many each reason took.
Level = TypedDict("Level", {"stage": Stage, "pool": str, "in": int, "out": int, "dropped": dict[str, int]})


class Completeness(TypedDict):
    """Whether everything could be read; findings of what could not, and of what was odd."""

    complete: bool
    unread: list[Mapping[str, Any]]
    notes: list[Mapping[str, Any]]


class Manifest(Completeness):
    """`manifest.json`. One of an earlier version may lack what is no key of `RUN_KEYS`."""

    schema: int
    name: str
    created: str
    config_sha256: str
    code_version: str
    seed: int
    dataset_dir: str
    lineage: list[Entry]
    selection: list[Entry]
    counts: dict[str, Any]  # by pool, by what became of its images; `dataset` is a number
    funnel: list[Level]
    losses: list[Mapping[str, Any]]
    recall: list[Mapping[str, Any]]
    edges_dropped: int
    shards: list[Entry]
    files: list[Entry]


# What whoever reads shards needs of it, and what a run has to have put there.
DATASET_KEYS: Mapping[str, type] = {"dataset_dir": str, "shards": list}
RUN_KEYS: Mapping[str, type] = {
    **DATASET_KEYS, "config_sha256": str, "complete": bool, "unread": list, "counts": dict, "funnel": list,
    "lineage": list, "selection": list,
}  # fmt: skip


def parse_manifest(
    text: bytes, *, where: str, keys: Mapping[str, type] = DATASET_KEYS, remedy: str
) -> Manifest:
    """The manifest in a text.

    One without a seal was written by an earlier version, or by hand, and is taken at its word.

    Args:
        text: of the file.
        where: the file.
        keys: what it must have, and of which kind.
        remedy: what to do where it is damaged.

    Raises:
        IntegrityError: when it is not as it was written, or is no manifest.
    """
    try:
        manifest = unseal(text, where=where)
    except IntegrityError as error:
        raise IntegrityError(f"{where} is no manifest", got=error.got, remedy=remedy) from error
    if (schema := manifest.get("schema", MANIFEST_SCHEMA)) != MANIFEST_SCHEMA:
        raise IntegrityError(
            f"{where} is no manifest that this version of lvd knows",
            got=f"schema {schema!r}",
            expected=f"schema {MANIFEST_SCHEMA}",
            remedy="Read it with the version that wrote it (`code_version`)",
        )
    for name, kind in keys.items():
        if not isinstance(manifest.get(name), kind):
            got = "nothing" if name not in manifest else type(manifest[name]).__name__
            raise IntegrityError(
                f"{where} is no manifest",
                got=f"{got} for {name}",
                expected=f"a {kind.__name__}",
                remedy=remedy,
            )
    return cast(Manifest, manifest)
