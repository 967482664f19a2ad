"""Tensors as safetensors, in files that those may read whom the umask lets read."""

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file as save_privately
from torch import Tensor

from curation.local_files import set_usual_mode


def save_file(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write a `.safetensors` file: equal tensors and metadata as equal bytes, with the mode of any new file.

    safetensors writes a temporary file of its own, which is its user's alone, and renames that: colleagues
    who share the folder could read all of a checkpoint but its weights.

    Args:
        tensors: by name, each in memory of its own.
        path: of the file.
        metadata: of the file's header.
    """
    save_privately(dict(tensors), path, metadata=dict(metadata) if metadata is not None else None)
    if metadata:
        _sort_metadata(path)
    set_usual_mode(path)


def _sort_metadata(path: Path) -> None:
    """Let equal tensors be equal files: safetensors writes its metadata in another order each time."""
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(size)
        assert len(text) == size, "the header is as long in any order"
        file.seek(8)
        file.write(text)
