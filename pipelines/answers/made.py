"""What a finished dataset was made of: where each stage left its answer, saved beside the steps.

A run that is asked again goes through the whole flow and finds every receipt, which takes the code of every
stage, and at a billion images the names of half a million files of edges. A question about one image takes
this file. It is a marker like those of the steps: `lvd clean` removes it, and then the flow is asked.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from curation import storage
from curation.errors import IntegrityError
from curation.sealed import seal, unseal
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


def save_made(run_dir: str, manifest: Mapping[str, Any], made: Made) -> None:
    """Write what the dataset in `manifest` was made of."""
    data = {
        "schema": MADE_SCHEMA,
        "parts": [_plain_part(part, run_dir) for part in made.parts],
        "hits": {pool: _plain(file, run_dir) for pool, file in made.hits.items()},
        **{name: _plain(getattr(made, name), run_dir) for name in _FILES},
    }
    storage.publish_bytes(_path(run_dir, manifest), seal(data).encode(), replace=True)


_FILES = ("copies", "health", "leaks", "alive", "cluster", "closeness")


def read_made(run_dir: str, manifest: Mapping[str, Any]) -> Made | None:
    """As it was saved; None where it was not, is damaged, or speaks of files that are gone."""
    path = _path(run_dir, manifest)
    try:
        data = unseal(storage.read_bytes(path), where=path)
        if data["schema"] != MADE_SCHEMA:
            return None
        made = Made(
            parts=tuple(_part(part, run_dir) for part in data["parts"]),
            hits={pool: _ref(file, run_dir) for pool, file in data["hits"].items()},
            **{name: _ref(data[name], run_dir) for name in _FILES},
        )
    except (FileNotFoundError, IntegrityError, ValueError, KeyError, TypeError):
        return None
    return made if all(storage.exists(getattr(made, name).path) for name in _FILES) else None


def _path(run_dir: str, manifest: Mapping[str, Any]) -> str:
    return storage.join(run_dir, f"steps/dataset/markers/{manifest['dataset_dir']}.json")


def _plain(ref: FileRef, run_dir: str) -> list[Any]:
    # Below the run directory, which may be moved.
    return [ref.path.removeprefix(run_dir.rstrip("/") + "/"), ref.num_bytes, ref.sha256]


def _ref(entry: list[Any], run_dir: str) -> FileRef:
    path, num_bytes, sha256 = entry
    return FileRef(storage.join(run_dir, path), num_bytes, sha256)


def _plain_part(part: Part, run_dir: str) -> dict[str, Any]:
    values = {field.name: getattr(part, field.name) for field in fields(part)}
    return {name: _plain(v, run_dir) if isinstance(v, FileRef) else v for name, v in values.items()}


def _part(data: Mapping[str, Any], run_dir: str) -> Part:
    values: dict[str, Any] = {n: _ref(v, run_dir) if isinstance(v, list) else v for n, v in data.items()}
    return Part(**values)
