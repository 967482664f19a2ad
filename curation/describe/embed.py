"""The small contract of everything that turns pictures into vectors, and its configuration."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float16, Float32, UInt8
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from curation.errors import ConfigError
from curation.pictures.views import View

Library = Literal["gist", "open_clip", "timm", "vit", "sscd", "precomputed"]
ALLOWED = (
    "gist, open_clip:ARCH/PRETRAINED_OR_PATH, timm:NAME[@PATH], vit:CHECKPOINT, "
    "sscd:FILE[@SHA256][,whitening=FILE[@SHA256]] or precomputed:FILE.parquet"
)
WHITENING = ",whitening="
# A tail of hexadecimal digits is a SHA-256 that was cut short and no part of a name.
PINNED = re.compile(r"(?P<path>.+?)(?:@(?P<sha256>[0-9a-fA-F]{64}))?")
CUT_SHORT = re.compile(r".*@[0-9a-fA-F]*")


@runtime_checkable
class Embedder(Protocol):
    """A model behind one method; its batch has one shape, so that a vector never depends on a remainder."""

    @property
    def name(self) -> str:
        """The spec that it was built from."""
        ...

    @property
    def dim(self) -> int:
        """Length of a vector."""
        ...

    @property
    def view(self) -> View:
        """What it wants to see of a picture."""
        ...

    @property
    def batch_rows(self) -> int:
        """Pictures in a forward, always."""
        ...

    def embed(self, pixels: UInt8[np.ndarray, "n s s 3"]) -> Float16[np.ndarray, "n d"]:
        """Unit rows, rounded to fp16 last; zeros where there is no finite vector.

        Args:
            pixels: `batch_rows` views, RGB, 0–255.
        """
        ...


@dataclass(frozen=True, slots=True)
class EmbedderSpec:
    """A parsed embedder spec: which library builds `model`, and from which `weights`."""

    library: Library
    model: str = ""  # architecture; empty for gist, precomputed, and vit and sscd, whose weights tell it
    weights: str = ""  # a file or a hub tag; empty where the library's default tag is meant
    sha256: str = ""  # that the weights must have, in lower-case hex; empty where none was named
    whitening: str = ""  # a file with the map that follows an sscd; empty for none
    whitening_sha256: str = ""  # that it must have


def parse_embedder(spec: str) -> EmbedderSpec:
    """Take an embedder spec apart.

    Args:
        spec: `gist`, `open_clip:ARCH/PRETRAINED_OR_PATH`, `timm:NAME[@PATH]`, `vit:CHECKPOINT` (what
            `lvd pretrain` wrote, or a backbone of the official, Hugging Face's or timm's kind),
            `sscd:FILE[@SHA256][,whitening=FILE[@SHA256]]` (what the authors of SSCD published, or a file of
            its tensors; a TorchScript archive needs its SHA-256 named) or `precomputed:FILE.parquet`.

    Raises:
        ConfigError: it is none of them.
    """
    library, _, rest = spec.partition(":")
    match library:
        case "gist" if spec == "gist":
            return EmbedderSpec("gist")
        case "open_clip":
            arch, _, weights = rest.partition("/")
            if arch and weights:
                return EmbedderSpec("open_clip", arch, weights)
        case "timm":
            name, at, path = rest.partition("@")
            # timm reads `local-dir:` and `hf-hub:` as addresses; a name is a name here, a file has its @.
            if name and bool(at) == bool(path) and ":" not in name:
                return EmbedderSpec("timm", name, path)
        case "vit" if rest:
            return EmbedderSpec("vit", weights=rest)
        case "sscd" if sscd := _parse_sscd(rest):
            return sscd
        case "precomputed" if rest.endswith(".parquet"):
            return EmbedderSpec("precomputed", weights=rest)
    raise ConfigError(
        "Unknown embedder", got=repr(spec), expected=ALLOWED, remedy="Give one of these forms as the embedder"
    )


def parse_pinned(text: str) -> tuple[str, str]:
    """Take `FILE[@SHA256]` apart: the path, and the digest in lower-case hex, empty where none is named.

    Raises:
        ConfigError: there is no path, or what follows the @ is a SHA-256 that was cut short.
    """
    found = PINNED.fullmatch(text)
    if found is None or CUT_SHORT.fullmatch(found["path"]):
        raise ConfigError(
            "This names no file", got=repr(text), expected="FILE or FILE@SHA256, with all 64 digits"
        )
    return found["path"], (found["sha256"] or "").lower()


def sscd_spec(spec: EmbedderSpec) -> str:
    """The text that `parse_embedder` takes apart into these files of an sscd."""

    def pinned(path: str, sha256: str) -> str:
        return f"{path}@{sha256}" if sha256 else path

    text = f"sscd:{pinned(spec.weights, spec.sha256)}"
    return text + (WHITENING + pinned(spec.whitening, spec.whitening_sha256) if spec.whitening else "")


def _parse_sscd(text: str) -> EmbedderSpec | None:
    weights, *whitening = text.split(WHITENING)
    files = [PINNED.fullmatch(file) for file in (weights, *whitening)]
    if len(files) > 2 or not all(file and not CUT_SHORT.fullmatch(file["path"]) for file in files):
        return None
    pinned = [value for file in files if file for value in (file["path"], (file["sha256"] or "").lower())]
    return EmbedderSpec("sscd", "", *pinned)


def _taken_by(parse: Callable[[str], object]) -> Callable[[str], str]:
    """A validator of pydantic: text that `parse` takes passes as it is.

    What `parse` refuses with a ConfigError becomes a ValueError, to which pydantic adds the field's name.
    """

    def validate(text: str) -> str:
        try:
            parse(text)
        except ConfigError as error:
            raise ValueError(str(error)) from error
        return text

    return validate


EmbedderName = Annotated[str, AfterValidator(_taken_by(parse_embedder))]
PinnedFile = Annotated[str, AfterValidator(_taken_by(parse_pinned))]


class EmbedConfig(BaseModel):
    """How vectors are made. Every field changes their bits, so every field is part of a part's identity."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    embedder: EmbedderName = Field(default="gist", description=f"which model: {ALLOWED}")
    image_size_px: int | None = Field(
        default=None, description="side of the model's input; its own where null", ge=8
    )
    dtype: Literal["auto", "fp32", "bf16"] = Field(
        default="auto",
        description="arithmetic of the forward; auto: bf16 where the device has it in hardware",
    )
    compile: Literal["auto"] | bool = Field(
        default="auto",
        description="torch.compile with frozen weights; auto: on a CPU that has a C++ compiler",
    )
    batch_rows: int = Field(default=32, description="images in a forward, always", ge=1)
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="auto: cuda where present")


def unit_rows(features: Float32[np.ndarray, "n d"]) -> Float16[np.ndarray, "n d"]:
    """Scale rows to unit length in fp64 and round to fp16 last.

    Returns:
        Unit rows; zeros for a row that is zero or not finite, which then counts as having no vector.
    """
    wide = features.astype(np.float64)
    norms = np.linalg.norm(wide, axis=1, keepdims=True)
    usable = np.isfinite(norms) & (norms > 0)
    return np.where(usable, wide / np.where(usable, norms, 1.0), 0.0).astype(np.float16)
