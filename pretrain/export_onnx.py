"""A backbone as an ONNX file, for runtimes that know no PyTorch."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from curation.packages import needing
from pretrain.export_program import OUTPUTS, FeatureModel, Input, Run, exporting, require_same, trace

if TYPE_CHECKING:
    from torch.onnx import ONNXProgram

ONNX_BOUND = 1e-3
# A file of ONNX ends at 2 GiB, and has the graph in it; above this the weights lie in PATH.data beside it.
MAX_WITHIN_BYTES = 1_800_000_000
_QUIET = 3  # errors alone
PREFIX = "lvd."  # of our keys in the file's metadata


def write_onnx(
    model: FeatureModel,
    path: Path,
    *,
    taken: Input,
    facts: dict[str, str],
    max_within_bytes: int = MAX_WITHIN_BYTES,
) -> None:
    """Write an ONNX file, load it in onnxruntime, and see that it gives the model's features.

    Args:
        model: in eval mode, on the CPU.
        path: of the file; weights of more than `max_within_bytes` go to PATH.data beside it.
        taken: what the graph takes.
        facts: what else the file's metadata says, beside `taken.facts()`; keys begin with `lvd.`.
        max_within_bytes: see `path`.

    Raises:
        ConfigError: a package of the extra `onnx` is missing.
        ModelError: the model cannot be written as ONNX, or the file gives other features.
    """
    _require_packages()
    program = trace(model, taken)
    num_bytes = sum(tensor.nbytes for tensor in model.state_dict().values())
    with exporting("The graph cannot be written as ONNX"):
        written = torch.onnx.export(
            program, input_names=["images"], output_names=OUTPUTS, dynamo=True, verbose=False
        )
        assert written is not None, "given no path, it returns what it made"
        _name_axes(written, taken)
        written.model.metadata_props.update(
            {f"{PREFIX}{name}": text for name, text in {**taken.facts(), **facts}.items()}
        )
        written.save(path, external_data=num_bytes > max_within_bytes)
        run = open_onnx(path)
    require_same(run, model, taken=taken, bound=ONNX_BOUND, what="the ONNX exporter")


def open_onnx(path: Path) -> Run:
    """An ONNX file of ours as a function of images, computed by onnxruntime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = _QUIET
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> list[Tensor]:
        made: list[Any] = session.run(list(OUTPUTS), {"images": images.numpy()})
        return [torch.from_numpy(array) for array in made]

    return run


def _name_axes(written: "ONNXProgram", taken: Input) -> None:
    """Call the axes what they are; the exporter numbers its symbols."""
    import onnx_ir

    graph = written.model.graph
    sides = ("height", "width") if taken.size_px is None else (taken.size_px, taken.size_px)
    graph.inputs[0].shape = onnx_ir.Shape(["batch", taken.channels, *sides])
    for output, axes in zip(graph.outputs, (("batch",), ("batch", "patches")), strict=True):
        assert output.shape is not None
        free = axes if taken.size_px is None else ("batch", *output.shape[1:-1])
        output.shape = onnx_ir.Shape([*free, output.shape[-1]])


def _require_packages() -> None:
    """See that what writes and reads ONNX is there.

    Raises:
        ConfigError: when it is not.
    """
    with needing(
        "ONNX files are written by onnxscript and checked by onnxruntime", install="pip install 'lvd[onnx]'"
    ):
        import onnx_ir  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
