"""Where weights come from: the training, those before it, the dataset, and what was measured of them.

All of it is told as far as it lies there. What cannot be read is said to be so, and nothing is made up.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from curation.errors import LvdError
from curation.shard.manifest import Manifest, parse_manifest
from pretrain.checkpoint_files import MARKER, is_checkpoint
from pretrain.metrics import read_metrics

FACTS = "training.json"
EVALUATION = "evaluation.json"  # what `lvd evaluate --json` printed, in the run directory
CONFIGS = ("pretrain.yaml", "adapt.yaml", "distill.yaml")
STUDENTS = "students"  # RUN_DIR/students/NAME looks like a run directory
MAX_PARENTS = 100  # of a chain; more are a circle
_LOOK = ("knn_", "rank_me")


@dataclass(frozen=True)
class Ancestor:
    """A checkpoint that a training began with."""

    step: int | None
    sha256: str  # of its COMPLETE.json; of weights that are no checkpoint, of these
    state: str  # whether it is still there as it was


@dataclass(frozen=True)
class Origin:
    """What is known of some weights; what is not is empty."""

    facts: Mapping[str, Any] = field(default_factory=dict)  # training.json
    marker_sha256: str = ""  # names the checkpoint for those that begin with it
    ancestors: tuple[Ancestor, ...] = ()
    name: str = ""  # of the training
    manifests: tuple[Manifest, ...] = ()  # of the dataset, or of several that were mixed
    look: Mapping[str, Any] = field(default_factory=dict)  # the last line of metrics.jsonl that measured
    evaluation: Any = None
    unknown: tuple[str, ...] = ()  # what was there and could not be read


def origin_of(weights: Path) -> Origin:
    """What the files around weights say of them.

    Args:
        weights: a file, as `find_weights` gives it. What is no checkpoint of ours has no origin.
    """
    folder = weights.absolute().parent
    if not is_checkpoint(folder):
        return Origin()
    run_dir, unknown = folder.parent.parent, list[str]()
    facts = _object(folder / FACTS, unknown)
    config = _config_of(run_dir, unknown)
    try:
        measured = [line for line in read_metrics(run_dir) if any(key.startswith(_LOOK) for key in line)]
    except OSError as error:
        measured = []
        unknown.append(f"metrics.jsonl ({error.strerror})")
    # A checkpoint before the newest was not what later looks saw.
    step = facts.get("step")
    looks = [line for line in measured if not isinstance(step, int) or line["step"] <= step]
    return Origin(
        facts=facts,
        marker_sha256=_sha256(folder / MARKER),
        ancestors=_ancestors(facts),
        name=str(config.get("name", "")),
        manifests=_manifests_of(config, unknown),
        look=_look(looks[-1]) if looks else {},
        evaluation=_json(run_dir / EVALUATION, unknown),
        unknown=tuple(unknown),
    )


def _look(line: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in line.items() if key == "step" or key.startswith(_LOOK)}


def _ancestors(facts: Mapping[str, Any]) -> tuple[Ancestor, ...]:
    """Parents, the nearest first, as far as each is still what its child began with."""
    found: list[Ancestor] = []
    while isinstance(parent := facts.get("parent"), Mapping) and len(found) < MAX_PARENTS:
        folder, sha256 = Path(str(parent.get("path", ""))), str(parent.get("sha256", ""))
        if folder.is_file():  # weights that are no checkpoint, such as a released teacher: they may be large
            found.append(Ancestor(None, sha256, f"there, not read again: {folder.name}"))
            break
        there = _sha256(folder / MARKER)
        is_same = bool(there) and there == sha256
        state = "as it was" if is_same else "changed since" if there else "no longer there"
        step = parent.get("step")
        found.append(Ancestor(step if isinstance(step, int) else None, sha256, state))
        facts = _object(folder / FACTS, []) if is_same else {}
    return tuple(found)


def _config_of(run_dir: Path, unknown: list[str]) -> Mapping[str, Any]:
    """The config that a training has written down; of a student, that of the run which it is of."""
    folders = [run_dir] if run_dir.parent.name != STUDENTS else [run_dir, run_dir.parent.parent]
    for path in (folder / name for folder in folders for name in CONFIGS):
        if not path.is_file():
            continue
        try:
            config = yaml.safe_load(path.read_bytes())
        except (OSError, ValueError, RecursionError, yaml.YAMLError):
            unknown.append(path.name)
            continue
        if isinstance(config, Mapping):
            return config
        unknown.append(path.name)
    return {}


def _manifests_of(config: Mapping[str, Any], unknown: list[str]) -> tuple[Manifest, ...]:
    """The manifest of the dataset, or of each that was mixed, as far as they can be read."""
    data = config.get("data")
    if not isinstance(data, Mapping):
        return ()
    mixed = data.get("mix")
    parts = [data, *(mixed if isinstance(mixed, list) else [])]
    paths = [part.get("path") for part in parts if isinstance(part, Mapping)]
    found = [_manifest_at(path, unknown) for path in paths if path and isinstance(path, str)]
    return tuple(manifest for manifest in found if manifest is not None)


def _manifest_at(path: str, unknown: list[str]) -> Manifest | None:
    file = Path(path) if path.endswith(".json") else Path(path) / "manifest.json"
    if ".tar" in path or path.startswith("pipe:"):
        unknown.append("a manifest of the dataset (tars that lvd has not written have none)")
        return None
    if "://" in path:
        unknown.append("a manifest of the dataset (it lies on another machine)")
        return None
    try:
        return parse_manifest(file.read_bytes(), where=str(file), remedy="")
    except OSError as error:
        unknown.append(f"a manifest of the dataset ({os.strerror(error.errno or 0)})")
    except LvdError:
        unknown.append("a manifest of the dataset (damaged)")
    return None


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


def _object(path: Path, unknown: list[str]) -> Mapping[str, Any]:
    found = _json(path, unknown)
    return found if isinstance(found, Mapping) else {}


def _json(path: Path, unknown: list[str]) -> Any:
    """What a file holds; None where there is none, and where it cannot be read, which is noted."""
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        unknown.append(path.name)
        return None
