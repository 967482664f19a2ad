"""The descriptor `sscd:FILE`: the published weights, in any of their three forms, on a trunk of timm's."""

import hashlib
import io
import warnings

import torch
from torch import Tensor, nn

from curation import storage
from curation.describe.embed import EmbedderSpec
from curation.describe.sscd import DEFAULT_DIM, Sscd, own_names, trunk_of
from curation.errors import ModelError
from pipelines.models.pinned_files import check_digest, is_torchscript, vouched_digest
from pretrain.model.keys import check_shapes
from pretrain.model.keys_official import flatten, renamed
from pretrain.weights import READ_ERRORS, read_state

TRUNK_WIDTH = 2048
COUNTER = ".num_batches_tracked"  # of a batch norm in training; no forward reads it


def load_sscd(spec: EmbedderSpec) -> Sscd:
    """The model in fp32, on the CPU, in eval mode.

    Args:
        spec: a parsed `sscd:FILE[@SHA256][,whitening=FILE[@SHA256]]`.

    Raises:
        ModelError: a file that is not there, is another than the one named, or cannot be read; a TorchScript
            archive whose SHA-256 is not named; tensors that are missing, misshapen or not expected.
    """
    content = _read(spec.weights, spec.sha256)
    names = own_names(content)
    state = renamed({name: content[name] for name in names}, names.__getitem__)
    projection = state.get("head.linear.weight")
    dim = len(projection) if projection is not None and projection.ndim == 2 else DEFAULT_DIM
    model = Sscd(new_trunk(trunk_of(state)), width=TRUNK_WIDTH, dim=dim)
    shapes = {k: tuple(v.shape) for k, v in model.state_dict().items() if not k.endswith(COUNTER)}
    check_shapes(state, shapes, what=f"an SSCD (under torchvision's names), in {spec.weights}")
    model.load_state_dict(state, strict=False)  # the counters alone are not in it
    if spec.whitening:
        model.head.whitening = _load_whitening(spec.whitening, spec.whitening_sha256, dim=dim)
    return model.eval()


def new_trunk(name: str) -> nn.Module:
    """A trunk with drawn weights that gives maps, for `Sscd`.

    Args:
        name: of timm's ResNets, whose tensors have torchvision's names: `resnet50`, `resnext101_32x4d`.
    """
    import timm  # seconds, for this alone

    return timm.create_model(name, pretrained=False, num_classes=0, global_pool="")


def _read(path: str, sha256: str) -> dict[str, Tensor]:
    """The tensors of a file, whichever kind it is of, once its bytes are found to be those named."""
    vouched_digest(path, sha256)
    if not is_torchscript(path):
        return flatten(read_state(path)[0])
    data = storage.read_bytes(path)
    # Again, over the very bytes that are run.
    check_digest(path, hashlib.sha256(data).hexdigest(), sha256)
    return _read_torchscript(path, data)


def _read_torchscript(path: str, data: bytes) -> dict[str, Tensor]:
    try:
        with warnings.catch_warnings():
            # Deprecated for programs; it is still the only reader of what was published as one.
            warnings.filterwarnings("ignore", "`torch.jit.load` is deprecated", FutureWarning)
            program = torch.jit.load(io.BytesIO(data), map_location="cpu")
            state: dict[str, Tensor] = program.state_dict()
    except READ_ERRORS as error:
        raise ModelError(
            f"The TorchScript archive {path} cannot be read",
            got=" ".join(str(error).split())[:1000],
            remedy="Give the file of tensors of the same model (.classy.pt, .torchvision.pt)",
        ) from error
    if not state:
        raise ModelError(
            f"The TorchScript archive {path} holds no tensors by name: it was frozen",
            expected="an archive that was traced or scripted and not frozen",
            remedy="Give the file of tensors of the same model (.classy.pt, .torchvision.pt)",
        )
    return state


def _load_whitening(path: str, sha256: str, *, dim: int) -> nn.Linear:
    state = _read(path, sha256)
    rows = len(state["bias"]) if "bias" in state and state["bias"].ndim == 1 else dim
    shapes: dict[str, tuple[int, ...]] = {"weight": (rows, dim), "bias": (rows,)}
    check_shapes(state, shapes, what=f"a whitening of {dim} numbers, in {path}")
    layer = nn.Linear(dim, rows)
    layer.load_state_dict(state)
    return layer
