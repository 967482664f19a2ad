"""The saved form of a finished run: where each stage left its answer, written beside the steps.

A run that is asked again goes through the whole flow and finds every receipt, which takes the code of every
stage, and at a billion images the names of half a million files of edges. A question about one image takes
this file. It is a marker like those of the steps: `lvd clean` removes it, and then the flow is asked.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from curation import storage
from curation.errors import IntegrityError
from curation.sealed import seal, unseal
from curation.shard.manifest import Manifest
from pipelines.engine.step import FileRef
from pipelines.rows.parts import Part

if TYPE_CHECKING:
    from pipelines.lvd import Curated

MADE_SCHEMA = 1


@dataclass(frozen=True)
class Made:
    """The parts and the files of all stages: see `schema` for the tables; the arrays are by global row."""

    parts: tuple[Part, ...]
    copies: FileRef
    health: FileRef
    leaks: FileRef
    hits: Mapping[str, FileRef]  # by curated pool
    alive: FileRef  # whether a row has survived dedup and decontaminate
    cluster: FileRef  # -1: none
    closeness: FileRef  # to the centroid

    @property
    def num_rows(self) -> int:
        """Images of the run."""
        return self.parts[-1].offset + self.parts[-1].num_rows


def made_of(curated: "Curated") -> Made:
    """What questions about single images need of what a run has made."""
    return Made(
        parts=curated.parts,
        copies=curated.copies.copies,
        health=curated.copies.health,
        leaks=curated.leaks.leaks,
        hits=curated.hits,
        alive=curated.clusters.alive,
        cluster=curated.clusters.cluster,
        closeness=curated.clusters.score,
    )


def save_made(run_dir: str, manifest: Manifest, made: Made) -> None:
    """Write what the dataset in `manifest` was made of."""
    data = {"schema": MADE_SCHEMA, **_below(asdict(made), storage.join(run_dir, ""))}
    storage.publish_bytes(_path(run_dir, manifest), seal(data).encode(), replace=True)


def read_made(run_dir: str, manifest: Manifest) -> Made | None:
    """As it was saved; None where it was not, is damaged, or speaks of files that are gone."""
    path = _path(run_dir, manifest)
    try:
        data = unseal(storage.read_bytes(path), where=path)
        if data.pop("schema") != MADE_SCHEMA:
            return None
        data = _in(data, run_dir)
        made = Made(**data | {"parts": tuple(Part(**part) for part in data["parts"])})
    except (FileNotFoundError, IntegrityError, ValueError, KeyError, TypeError):
        return None
    files = (made.copies, made.health, made.leaks, made.alive, made.cluster, made.closeness)
    return made if all(storage.exists(file.path) for file in files) else None


def _path(run_dir: str, manifest: Manifest) -> str:
    return storage.join(run_dir, f"steps/dataset/markers/{manifest['dataset_dir']}.json")


def _below(value: Any, folder: str) -> Any:
    """Plain data, with files by their paths below the run directory, which may be moved."""
    match value:
        case FileRef():
            return [value.path.removeprefix(folder), value.num_bytes, value.sha256]
        case dict():
            return {name: _below(one, folder) for name, one in value.items()}
        case tuple():
            return [_below(one, folder) for one in value]
    return value


def _in(value: Any, run_dir: str) -> Any:
    """The inverse of `_below`: three values are a file."""
    match value:
        case [str(path), int(num_bytes), str(sha256)]:
            return FileRef(storage.join(run_dir, path), num_bytes, sha256)
        case dict():
            return {name: _in(one, run_dir) for name, one in value.items()}
        case list():
            return [_in(one, run_dir) for one in value]
    return value
