"""The files of the embedder `vit:CHECKPOINT`: which one a path means, and what stands for its bytes."""

import hashlib
import json
from pathlib import Path

from curation import storage
from pretrain.weight_files import find_weights


def weights_file(path: str) -> str:
    """The one file that a path means now, absolute: a training that goes on writes newer checkpoints.

    Raises:
        ModelError: when there is none.
    """
    return str(Path.cwd() / find_weights(path))


def digest_of_weights(path: str) -> str:
    """SHA-256 of everything that decides what is loaded from a path."""
    file = find_weights(path)
    files = [file]
    if file.name.endswith(".index.json"):
        files += [
            file.parent / name for name in sorted(set(json.loads(file.read_text())["weight_map"].values()))
        ]
    # What transformers and timm save tells heads and depth beside the weights.
    files += [beside for beside in (file.parent / "config.json",) if beside.is_file()]
    digests = [storage.sha256_file(str(one))[0] for one in files]
    return digests[0] if len(digests) == 1 else hashlib.sha256(" ".join(digests).encode()).hexdigest()
