"""Tensors as safetensors, in files that those may read whom the umask lets read."""

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file as save_privately
from torch import Tensor

from curation.local_files import set_usual_mode


def save_file(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write a `.safetensors` file with the mode that any new file has in its folder.

    safetensors writes a temporary file of its own, which is its user's alone, and renames that: colleagues
    who share the folder could read all of a checkpoint but its weights.

    Args:
        tensors: by name, each in memory of its own.
        path: of the file.
        metadata: of the file's header.
    """
    save_privately(dict(tensors), path, metadata=dict(metadata) if metadata is not None else None)
    set_usual_mode(path)
