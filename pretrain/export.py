"""A backbone for other programs: a directory for transformers or timm, an official file, ours, or a graph.

At the model's own grid every format gives the same features. At other sizes each library resamples position
embeddings in its own way, and a file cannot change that:

| format | without registers | with registers |
|---|---|---|
| ours (`safetensors`) | as the model says | as the model says |
| official code | offset 0.1, no antialiasing | exact size, antialiasing |
| Hugging Face | exact size, no antialiasing | exact size, antialiasing |
| timm | exact size, antialiasing | exact size, antialiasing |
| `onnx`, `torch_export` | as the model says | as the model says |

So a released kind of model without registers is approximated at other sizes by Hugging Face and timm, as the
released weights are there; a model that resamples like neither its library nor the released ones is refused.
"""

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

from curation.disk_errors import naming
from curation.errors import ConfigError, ModelError
from curation.local_files import fsync
from pretrain.export_convnet import check_convnet_format, write_timm_convnet
from pretrain.export_onnx import write_onnx
from pretrain.export_program import FeatureModel, Input, write_program
from pretrain.model.convnet import ConvNet, ConvNetConfig
from pretrain.model.keys import HEAD_DIM
from pretrain.model.keys_huggingface import huggingface_config, to_huggingface
from pretrain.model.keys_timm import CROP_FRACTION, timm_config, to_timm
from pretrain.model.network import Backbone, BackboneConfig
from pretrain.model.vit import VisionTransformer, ViTConfig
from pretrain.model_card import Model, card_of, require_license
from pretrain.normalisation import IMAGENET, Normalisation, carried_metadata, told_normalisation
from pretrain.origin import origin_of
from pretrain.tensor_files import save_file
from pretrain.weight_files import find_weights
from pretrain.weights import load_backbone, metadata_of_config

Format = Literal["huggingface", "timm", "official", "safetensors", "onnx", "torch_export"]
SUFFIXES: dict[Format, tuple[str, ...]] = {
    "official": (".pth", ".pt"),
    "safetensors": (".safetensors",),
    "onnx": (".onnx",),
    "torch_export": (".pt2",),
}
GRAPHS: tuple[Format, ...] = ("onnx", "torch_export")
LIBRARIES: dict[Format, str] = {
    "huggingface": "transformers",
    "timm": "timm",
    "official": "pytorch",
    "safetensors": "lvd",
    "onnx": "onnx",
    "torch_export": "pytorch",
}
CARD = "README.md"
BICUBIC = 3  # Pillow's number for it


def export(
    path: str | Path,
    *,
    format: Format,  # noqa: A002
    out: str | Path,
    num_heads: int | None = None,
    size_px: int | None = None,
    license_id: str | None = None,
) -> Path:
    """Write the backbone at a path in another format, and a card that says what it is, whole or not at all.

    - `huggingface`: a directory that `AutoModel` and `AutoImageProcessor` open.
    - `timm`: a directory that `timm.create_model("local-dir:DIR", pretrained=True)` opens. It has no mask
      token, which serves training alone.
    - `official`: a `.pth` file of tensors under the official names. It tells neither heads nor resampling.
    - `safetensors`: one file of tensors under the official names, with the model's shape in its metadata.
    - `onnx`: a graph for onnxruntime and other runtimes (see `pretrain.export_onnx`).
    - `torch_export`: a graph for `torch.export.load` (see `pretrain.export_program`).

    Both graphs are loaded and compared with the model before they appear.

    Args:
        path: see `pretrain.weight_files.find_weights`.
        format: see above.
        out: the directory or file to make. The card is README.md in a directory, and OUT.md beside a file.
        num_heads: see `pretrain.weights.load_backbone`.
        size_px: the only height and width that a graph takes; None: any.
        license_id: of the weights, for the card; None: unknown.

    Returns:
        `out`.

    Raises:
        ConfigError: `out` is there already, its suffix is not that of the format, the model takes no images
            of that size, or a package is missing.
        ModelError: the backbone cannot be loaded, the format cannot express it, or a graph gives other
            features.
    """
    out = Path(out)
    require_license(license_id)
    _check_out(out, format)
    model = load_backbone(path, num_heads=num_heads).requires_grad_(False)
    _check_expressible(model.config, format)
    normalisation = told_normalisation(path, channels=model.config.channels)
    if format in ("huggingface", "timm"):
        _check_is_rgb(normalisation, model.config, format)
    taken = _input_of(model.config, format, size_px, normalisation)
    about = Model(
        title=out.name,
        library=LIBRARIES[format],
        backbone=type(model).__name__,
        config=model.config,
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
        taken=taken.facts() if format in GRAPHS else asdict(taken),
    )
    card = card_of(about, origin_of(find_weights(path)), license_id=license_id)
    with naming(out), _published(out) as draft:
        facts = metadata_of_config(model.config) | carried_metadata(path)
        _write(model, draft, format=format, taken=taken, facts=facts)
        card_path(draft, format).write_text(card, encoding="utf-8")
    return out


def card_path(out: Path, kind: Format) -> Path:
    """Where the card of what is exported lies."""
    return out.with_name(f"{out.name}.md") if kind in SUFFIXES else out / CARD


def _write(
    model: Backbone,
    draft: Path,
    *,
    format: Format,  # noqa: A002
    taken: Input,
    facts: dict[str, str],
) -> None:
    match format:
        case "timm" if isinstance(model, ConvNet):
            write_timm_convnet(model, draft)
        case "huggingface":
            _write_huggingface(model, draft, taken)
        case "timm":
            _write_timm(model, draft, taken)
        case "official":
            torch.save(_plain(model.state_dict()), draft)
        case "safetensors":
            save_file(_plain(model.state_dict()), draft, metadata=facts)
        case "onnx":
            write_onnx(FeatureModel(model), draft, taken=taken, facts=facts)
        case "torch_export":
            write_program(FeatureModel(model), draft, taken=taken, facts=facts)


def _input_of(
    config: BackboneConfig, kind: Format, size_px: int | None, normalisation: Normalisation | None
) -> Input:
    """The images that a model takes, of one size or of any.

    Raises:
        ConfigError: it takes none of that size, or the format has no size.
    """
    multiple_px = config.patch_px
    # A convolutional network's last map has a place for each 32 px.
    min_px = 2 * multiple_px if isinstance(config, ViTConfig) else -(-64 // multiple_px) * multiple_px
    if size_px is not None and kind not in GRAPHS:
        raise ConfigError(
            f"The {kind} format takes images of any size", got=f"{size_px} px", remedy="Leave the size out"
        )
    if size_px is not None and (size_px < 1 or size_px % multiple_px):
        raise ConfigError(
            "The model takes no images of this size",
            got=f"{size_px} px",
            expected=f"a multiple of {multiple_px}",
        )
    return Input(
        channels=config.channels,
        multiple_px=multiple_px,
        native_px=config.grid * multiple_px,
        min_px=min_px,
        size_px=size_px,
        mean=normalisation.mean if normalisation else None,
        std=normalisation.std if normalisation else None,
        bands=normalisation.bands if normalisation else None,
    )


def _write_huggingface(model: Backbone, folder: Path, taken: Input) -> None:
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
            "image_mean": list(taken.mean or IMAGENET.mean),
            "image_std": list(taken.std or IMAGENET.std),
        },
    )
    state = _plain(to_huggingface(model.state_dict()))
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def _write_timm(model: Backbone, folder: Path, taken: Input) -> None:
    assert isinstance(model, VisionTransformer)
    folder.mkdir()
    mean, std = taken.mean or IMAGENET.mean, taken.std or IMAGENET.std
    _write_json(folder / "config.json", timm_config(model.config, mean=mean, std=std))
    state = _plain(to_timm(model.state_dict()))
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def _check_out(out: Path, kind: Format) -> None:
    if kind not in get_args(Format):
        raise ConfigError("Unknown export format", got=repr(kind), expected=", ".join(get_args(Format)))
    for path in (out, card_path(out, kind), _data_path(out)):
        if path.exists() or path.is_symlink():
            raise ConfigError(f"{path} is there already", remedy="Give a new path, or remove it first")
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
    if kind == "safetensors" or kind in GRAPHS:
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


def _check_is_rgb(normalisation: Normalisation | None, config: BackboneConfig, kind: Format) -> None:
    if normalisation is None or config.channels != len(IMAGENET.mean):
        raise _inexpressible(
            kind,
            "the normalisation of other images than RGB",
            got=f"{config.channels} channels",
            expected="3 channels",
        )
    if normalisation.bands is not None:
        raise _inexpressible(
            kind, "which bands are its channels", got=f"bands {normalisation.bands}", expected="RGB"
        )


def _inexpressible(kind: Format, what: str, *, got: str, expected: str) -> ModelError:
    return ModelError(
        f"The {kind} format cannot say {what}",
        got=got,
        expected=expected,
        remedy="Export as safetensors, which keeps the whole config",
    )


def _data_path(out: Path) -> Path:
    """Where the weights of a large ONNX file lie."""
    return out.with_name(f"{out.name}.data")


@contextmanager
def _published(out: Path) -> Iterator[Path]:
    """A path to write to; what was written there, and beside it, appears at the end, if the end is reached.

    What belongs to `out` appears before it: where `out` is, everything is.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as stage:
        draft = Path(stage) / out.name
        yield draft
        for file in Path(stage).rglob("*"):
            if file.is_file():
                fsync(file)
        for file in [path for path in sorted(Path(stage).iterdir()) if path != draft] + [draft]:
            file.rename(out.with_name(file.name))


def _plain(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each tensor in memory of its own, as both kinds of files want it."""
    return {
        name: tensor.detach().clone(memory_format=torch.contiguous_format) for name, tensor in state.items()
    }


def _write_json(path: Path, fields: dict[str, object]) -> None:
    path.write_text(json.dumps(fields, indent=2) + "\n")
