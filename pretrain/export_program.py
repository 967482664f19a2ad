"""A backbone as one graph of operations: it needs none of our code, and takes images of any size.

The graph takes normalised images (b, channels, height, width) in fp32 and gives the class token (b, dim) and
the patches (b, rows · columns, dim), row by row. Batch, height and width are free, unless one size is asked
for.
"""

import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from curation.errors import ModelError, is_no_memory

OUTPUTS = ("cls", "patches")
FACTS_NAME = "lvd.json"  # of a .pt2 file's extra files
PROGRAM_BOUND = 1e-5
_SEED = 0

Run = Callable[[Tensor], Sequence[Tensor]]


@dataclass(frozen=True)
class Input:
    """What a graph takes.

    Attributes:
        channels: of an image.
        multiple_px: what height and width are multiples of.
        native_px: side of the images that the model was made for.
        min_px: the least height and width; below it a length on the way is 1, which is another graph.
        size_px: the only height and width that are taken; None: any.
        mean, std: what levels of 0..1 were normalised by, for each channel; None: unknown here.
        bands: numbers of the bands of TIFFs that are the channels, normalised in the unit of their samples;
            None: colours.
    """

    channels: int
    multiple_px: int
    native_px: int
    min_px: int
    size_px: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    bands: tuple[int, ...] | None = None

    def facts(self) -> dict[str, str]:
        """What a file says of its input and its outputs."""
        each, least = self.multiple_px, self.min_px
        size = f"{self.size_px} px" if self.size_px else f"multiples of {each} px, from {least} px on"
        what = "levels 0..1" if self.bands is None else "samples of bands"
        return {
            "input": f"images: fp32 (batch, channels, height, width), {what} less mean, divided by std",
            "height_and_width": size,
            **{name: json.dumps(value) for name, value in asdict(self).items()},
            "outputs": "cls: (batch, dim), of the image; patches: (batch, rows * columns, dim), row by row",
        }


class FeatureModel(nn.Module):
    """A backbone as a function of one batch of images; whatever its kind, it gives `Features` of groups."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Float[Tensor, "b c h w"]) -> tuple[Tensor, Tensor]:
        """Class tokens (b, dim) and patches (b, n, dim)."""
        [features] = self.backbone([images])
        return features.cls, features.patches


def trace(model: FeatureModel, taken: Input) -> ExportedProgram:
    """The graph of a model in eval mode.

    Raises:
        ModelError: PyTorch cannot follow it.
    """
    if taken.size_px is None:
        example = _images(taken, 2, *(taken.min_px + more * taken.multiple_px for more in (1, 3)))
        rows, columns = (Dim(name, min=taken.min_px // taken.multiple_px) for name in ("rows", "columns"))
        sides: dict[int, Any] = {2: taken.multiple_px * rows, 3: taken.multiple_px * columns}
    else:
        example = _images(taken, 2, taken.size_px, taken.size_px)
        sides = {}
    shapes = {"images": {0: Dim("batch", min=1), **sides}}
    with exporting("The model cannot be traced"):
        program = torch.export.export(model, (example,), dynamic_shapes=shapes, strict=False)
    for node in program.graph.nodes:  # paths of this machine
        node.meta.pop("stack_trace", None)
    return program


def write_program(model: FeatureModel, path: Path, *, taken: Input, facts: dict[str, str]) -> None:
    """Write a `.pt2` file for `torch.export.load`, load it, and see that it gives the model's features.

    Args:
        model: in eval mode, on the CPU.
        path: of the file.
        taken: what the graph takes.
        facts: what else the file says of itself, beside `taken.facts()`, in its extra file `lvd.json`.

    Raises:
        ModelError: PyTorch cannot follow the model, or the file gives other features.
    """
    said = json.dumps({**taken.facts(), **facts}, indent=2)
    program = trace(model, taken)
    with exporting("The graph cannot be saved and loaded"):
        torch.export.save(program, path, extra_files={FACTS_NAME: said})
        loaded = torch.export.load(path).module()
    require_same(loaded, model, taken=taken, bound=PROGRAM_BOUND, what="torch.export")


def require_same(run: Run, model: FeatureModel, *, taken: Input, bound: float, what: str) -> float:
    """See that what was written gives a model's features, on drawn images of two shapes.

    Args:
        run: gives class tokens and patches of images (b, c, h, w).
        model: gives what is expected.
        taken: which images are.
        bound: largest difference, of values up to 1; of larger ones it is that share of the largest.
        what: names the format.

    Returns:
        The largest difference that was found, as a share of that.

    Raises:
        ModelError: when it is over the bound.
    """
    found = []
    for number, height_px, width_px in _shapes(taken):
        images = _images(taken, number, height_px, width_px)
        with torch.inference_mode(), exporting(f"What {what} wrote cannot be run"):
            expected, made = model(images), run(images)
        for name, one, other in zip(OUTPUTS, made, expected, strict=True):
            found.append(_difference(one, other))
            if not found[-1] <= bound:  # nor is it where it is no number
                raise ModelError(
                    f"What {what} wrote gives other features than the model, and was removed",
                    got=f"{name} {tuple(one.shape)} of {number} images of {height_px} × {width_px} px, which "
                    f"differ from {tuple(other.shape)} by {found[-1]:.1e}",
                    expected=f"at most {bound:.0e}",
                    remedy="Export as safetensors; this is a fault of the exporter, worth a report",
                )
    return max(found)


def _difference(made: Tensor, expected: Tensor) -> float:
    """The largest, relative to the largest value where that is over 1."""
    if made.shape != expected.shape:
        return float("inf")
    return ((made - expected).abs().max() / expected.abs().max().clamp(min=1)).item()


def _shapes(taken: Input) -> list[tuple[int, int, int]]:
    """Images, height and width of two batches."""
    if taken.size_px is not None:
        return [(number, taken.size_px, taken.size_px) for number in (1, 3)]
    native, step = taken.native_px, taken.multiple_px
    return [(2, native, native), (1, native + step, max(native - 2 * step, taken.min_px))]


def _images(taken: Input, num: int, height_px: int, width_px: int) -> Float[Tensor, "b c h w"]:
    rng = torch.Generator().manual_seed(_SEED)
    return torch.randn(num, taken.channels, height_px, width_px, generator=rng)


@contextmanager
def exporting(what_failed: str) -> Iterator[None]:
    """Keep to itself what an exporter prints, warns of and logs; a failure tells it.

    Raises:
        ModelError: in the place of what the exporter raises, which is none of our errors.
    """
    said = io.StringIO()
    handler = logging.StreamHandler(said)
    loggers = [logging.getLogger(name) for name in ("torch", "torch.onnx", "onnxscript", "onnx_ir")]
    before = [(logger, logger.handlers, logger.propagate) for logger in loggers]
    try:
        for logger in loggers:
            logger.handlers, logger.propagate = [handler], False
        with warnings.catch_warnings(record=True) as warned, redirect_stdout(said), redirect_stderr(said):
            warnings.simplefilter("always")
            yield
    except (RuntimeError, ValueError, TypeError, LookupError, AssertionError) as error:
        if is_no_memory(error):
            raise
        told = [str(error), *said.getvalue().splitlines(), *(str(one.message) for one in warned)]
        raise ModelError(
            what_failed,
            got=" ".join(" ".join(told).split())[:2000],
            expected="a graph that holds for every batch",
            remedy="Export as safetensors",
        ) from error
    finally:
        for logger, handlers, propagate in before:
            logger.handlers, logger.propagate = handlers, propagate
