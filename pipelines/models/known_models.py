"""The models that timm and open_clip know by name, and the files that are theirs.

A library is imported where it is asked: each takes seconds.
"""

import difflib
from pathlib import Path

from curation.describe.embed import EmbedderSpec
from curation.errors import ConfigError, ModelError

# Pickle is code: these are read as safetensors, or by torch with weights_only.
WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")


def require_model(spec: EmbedderSpec) -> None:
    """See, without building it, that a model of timm or open_clip is known and its file is there.

    Raises:
        ConfigError: no such architecture; names those that come near.
        ModelError: no such file.
    """
    match spec.library:
        case "timm":
            import timm

            if not timm.is_model(spec.model):
                raise _unknown("timm", spec.model, timm.list_models())
            if spec.weights:
                _check_file(spec.weights, expected="a file saved by timm or torch")
        case "open_clip":
            import open_clip

            if spec.model not in open_clip.list_models():
                raise _unknown("open_clip", spec.model, open_clip.list_models())
            if is_file(spec):
                tags = open_clip.list_pretrained_tags_by_model(spec.model)
                near = difflib.get_close_matches(spec.weights, tags, n=5, cutoff=0.5) or tags
                _check_file(spec.weights, expected=", ".join(near))


def is_file(spec: EmbedderSpec) -> bool:
    """Whether the weights are a file, and not a tag of a hub."""
    match spec.library:
        case "gist":
            return False
        case "open_clip":
            import open_clip

            return spec.weights not in open_clip.list_pretrained_tags_by_model(spec.model)
        case _:
            return spec.weights != ""


def _check_file(path: str, *, expected: str) -> None:
    if not Path(path).is_file():
        raise ModelError("No weights", got=path, expected=expected or "a file", remedy="Check the path")
    if Path(path).suffix not in WEIGHT_SUFFIXES:
        raise ModelError(
            f"{path} is no kind of weights file that is read here",
            got=Path(path).suffix or "no suffix",
            expected=" or ".join(WEIGHT_SUFFIXES),
            remedy="Save the weights as safetensors",
        )


def _unknown(library: str, name: str, known: list[str]) -> ConfigError:
    near = difflib.get_close_matches(name, known, n=5) or known[:5]
    return ConfigError(f"{library} has no model of this name", got=name, expected=", ".join(near) + ", …")
