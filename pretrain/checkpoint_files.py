"""Which checkpoints a run has, and whether their bytes are those written. See `pretrain.checkpoint`.

Apart from the code that saves and loads them: torch takes seconds to import.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

MARKER = "COMPLETE.json"
TEACHER = "teacher.safetensors"
STUDENTS = "students"
FACTS = "training.json"
GRAM = "gram.safetensors"  # of a training with Gram anchoring, once that has begun
_STEP = re.compile(r"step-(\d{8})", re.ASCII)
# Without these there is nothing to go on from.
_FILES = frozenset((TEACHER, "student.safetensors", "training.safetensors", FACTS))


def step_dir(run_dir: Path, step: int) -> Path:
    """Where the checkpoint after `step` iterations lies."""
    return run_dir / "checkpoints" / f"step-{step:08d}"


def student_dir(run_dir: Path, name: str) -> Path:
    """Where a student of a distillation has its run directory."""
    return run_dir / STUDENTS / name


def student_dirs(run_dir: Path) -> list[Path]:
    """The run directories of the students of a distillation that have begun; of anything else none."""
    return sorted(path.parent for path in run_dir.glob(f"{STUDENTS}/*/checkpoints"))


def is_checkpoint(folder: Path) -> bool:
    """Whether a folder has the name of a checkpoint of ours."""
    return _STEP.fullmatch(folder.name) is not None


def complete_steps(run_dir: Path) -> list[int]:
    """The steps with a marker, in order."""
    return [_step_of(folder) for folder in folders(run_dir) if (folder / MARKER).exists()]


def folders(run_dir: Path) -> list[Path]:
    """What has the name of a checkpoint, in the order of the steps; a copy under another name is none."""
    return sorted((path for path in run_dir.glob("checkpoints/*") if is_checkpoint(path)), key=_step_of)


def _step_of(folder: Path) -> int:
    match = _STEP.fullmatch(folder.name)
    assert match is not None
    return int(match[1])


def read_facts(folder: Path) -> dict[str, Any]:
    """What `training.json` of a checkpoint says: step, images seen, what it began with, settings."""
    facts: dict[str, Any] = json.loads((folder / FACTS).read_text())
    return facts


def proof_of(path: Path) -> dict[str, str | int]:
    """What the marker says of a file."""
    with path.open("rb") as stream:
        return {"sha256": hashlib.file_digest(stream, "sha256").hexdigest(), "bytes": path.stat().st_size}


def fault_of(folder: Path, *, only: str | None = None) -> str | None:
    """What is wrong with a checkpoint, or with one of its files alone; None: nothing."""
    if not (folder / MARKER).is_file():
        return f"{MARKER} is missing"
    try:
        proof = json.loads((folder / MARKER).read_text())
        if not (_FILES if only is None else {only}) <= proof.keys():
            return f"{MARKER} lists too little"
        for name, expected in proof.items():
            if only not in (None, name):
                continue
            if not (folder / name).is_file():
                return f"{name} is missing"
            if proof_of(folder / name) != expected:
                return f"{name} is not what was written"
    except (ValueError, TypeError, AttributeError, RecursionError):
        return f"{MARKER} cannot be read"
    except OSError as error:  # a bad sector is damage as well
        return str(error)
    return None
