"""A backbone for other programs: as a directory for transformers or timm, as an official or as our own file.

At the model's own grid every format gives the same features. At other sizes each library resamples position
embeddings in its own way, and a file cannot change that:

| format | without registers | with registers |
|---|---|---|
| ours (`safetensors`) | as the model says | as the model says |
| official code | offset 0.1, no antialiasing | exact size, antialiasing |
| Hugging Face | exact size, no antialiasing | exact size, antialiasing |
| timm | exact size, antialiasing | exact size, antialiasing |

So a released kind of model without registers is approximated at other sizes by Hugging Face and timm, as the
released weights are there; a model that resamples like neither its library nor the released ones is refused.
"""

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, get_args

import torch
from safetensors.torch import save_file
from torch import Tensor

from curation.disk_errors import naming
from curation.errors import ConfigError, ModelError
from pretrain.export_convnet import check_convnet_format, write_timm_convnet
from pretrain.model.convnet import ConvNet, ConvNetConfig
from pretrain.model.keys import HEAD_DIM
from pretrain.model.keys_huggingface import huggingface_config, to_huggingface
from pretrain.model.keys_timm import CROP_FRACTION, IMAGENET_MEAN, IMAGENET_STD, timm_config, to_timm
from pretrain.model.network import Backbone, BackboneConfig
from pretrain.model.vit import VisionTransformer
from pretrain.weights import load_backbone, metadata_of_config

Format = Literal["huggingface", "timm", "official", "safetensors"]
SUFFIXES: dict[Format, tuple[str, ...]] = {"official": (".pth", ".pt"), "safetensors": (".safetensors",)}
BICUBIC = 3  # Pillow's number for it


def export(path: str | Path, *, format: Format, out: str | Path, num_heads: int | None = None) -> Path:  # noqa: A002
    """Write the backbone at a path in another format, whole or not at all.

    - `huggingface`: a directory that `AutoModel` and `AutoImageProcessor` open.
    - `timm`: a directory that `timm.create_model("local-dir:DIR", pretrained=True)` opens. It has no mask
      token, which serves training alone.
    - `official`: a `.pth` file of tensors under the official names. It tells neither heads nor resampling.
    - `safetensors`: one file of tensors under the official names, with the model's shape in its metadata.

    Args:
        path: see `pretrain.weight_files.find_weights`.
        format: see above.
        out: the directory or file to make.
        num_heads: see `pretrain.weights.load_backbone`.

    Returns:
        `out`.

    Raises:
        ConfigError: `out` is there already, or its suffix is not that of the format.
        ModelError: the backbone cannot be loaded, or the format cannot express it.
    """
    out = Path(out)
    _check_out(out, format)
    model = load_backbone(path, num_heads=num_heads)
    _check_expressible(model.config, format)
    with naming(out), _published(out) as draft:
        match format:
            case "timm" if isinstance(model, ConvNet):
                write_timm_convnet(model, draft)
            case "huggingface":
                _write_huggingface(model, draft)
            case "timm":
                _write_timm(model, draft)
            case "official":
                torch.save(_plain(model.state_dict()), draft)
            case "safetensors":
                save_file(_plain(model.state_dict()), draft, metadata=metadata_of_config(model.config))
    return out


def _write_huggingface(model: Backbone, folder: Path) -> None:
    assert isinstance(model, VisionTransformer)
    folder.mkdir()
    side_px = model.config.grid * model.config.patch_px
    _write_json(folder / "config.json", huggingface_config(model.config))
    _write_json(
        folder / "preprocessor_config.json",
        {
            "image_processor_type": "BitImageProcessor",
            "do_convert_rgb": True,
            "do_resize": True,
            "size": {"shortest_edge": int(side_px / CROP_FRACTION)},
            "resample": BICUBIC,
            "do_center_crop": True,
            "crop_size": {"height": side_px, "width": side_px},
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": list(IMAGENET_MEAN),
            "image_std": list(IMAGENET_STD),
        },
    )
    state = _plain(to_huggingface(model.state_dict()))
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def _write_timm(model: Backbone, folder: Path) -> None:
    assert isinstance(model, VisionTransformer)
    folder.mkdir()
    _write_json(folder / "config.json", timm_config(model.config))
    state = _plain(to_timm(model.state_dict()))
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def _check_out(out: Path, kind: Format) -> None:
    if kind not in get_args(Format):
        raise ConfigError("Unknown export format", got=repr(kind), expected=", ".join(get_args(Format)))
    if out.exists() or out.is_symlink():
        raise ConfigError(f"{out} is there already", remedy="Give a new path, or remove it first")
    suffixes = SUFFIXES.get(kind, ())
    if suffixes and out.suffix not in suffixes:
        raise ConfigError(
            f"The {kind} format is a file of another suffix",
            got=out.suffix or "none",
            expected=" or ".join(suffixes),
        )


def _check_expressible(config: BackboneConfig, kind: Format) -> None:
    """Raise where a reader of the format would see other features than this model's."""
    if isinstance(config, ConvNetConfig):
        check_convnet_format(config, kind)
        return
    if kind == "safetensors":
        return
    released = (0.0, True) if config.registers else (0.1, False)
    own = {"huggingface": (0.0, config.registers > 0), "timm": (0.0, True), "official": released}[kind]
    if (config.position_offset, config.position_antialias) not in (released, own):
        raise _inexpressible(
            kind,
            "how this model resamples its positions",
            got=f"offset {config.position_offset}, antialias {config.position_antialias}",
            expected=" or ".join(f"offset {o}, antialias {a}" for o, a in dict.fromkeys((released, own))),
        )
    if kind == "official" and config.dim != HEAD_DIM * config.num_heads:
        raise _inexpressible(
            kind,
            "the number of attention heads",
            got=f"{config.num_heads} heads of {config.dim // config.num_heads} channels",
            expected=f"heads of {HEAD_DIM} channels",
        )
    if kind in ("huggingface", "timm") and config.channels != len(IMAGENET_MEAN):
        raise _inexpressible(
            kind,
            "the normalisation of other images than RGB",
            got=f"{config.channels} channels",
            expected="3 channels",
        )


def _inexpressible(kind: Format, what: str, *, got: str, expected: str) -> ModelError:
    return ModelError(
        f"The {kind} format cannot say {what}",
        got=got,
        expected=expected,
        remedy="Export as safetensors, which keeps the whole config",
    )


@contextmanager
def _published(out: Path) -> Iterator[Path]:
    """A path to write to; what was written there becomes `out` at the end, if the end is reached."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as stage:
        draft = Path(stage) / out.name
        yield draft
        for file in [draft] if draft.is_file() else draft.iterdir():
            with file.open("rb") as written:
                os.fsync(written.fileno())
        draft.rename(out)


def _plain(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each tensor in memory of its own, as both kinds of files want it."""
    return {
        name: tensor.detach().clone(memory_format=torch.contiguous_format) for name, tensor in state.items()
    }


def _write_json(path: Path, fields: dict[str, object]) -> None:
    path.write_text(json.dumps(fields, indent=2) + "\n")
