"""Models from their specs and weights: everything that touches a library's hub, file or architecture name."""

import difflib
import math
import pickle
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from curation import storage
from curation.cpu import has_bf16
from curation.describe.embed import EmbedConfig, Embedder, EmbedderSpec, parse_embedder
from curation.describe.gist import Gist
from curation.describe.sscd import sscd_view
from curation.describe.torch_embedder import TorchEmbedder
from curation.describe.views import View
from curation.errors import ConfigError, ModelError
from pretrain.pickled import fault_of

# Pickle is code: these are read as safetensors, or by torch with weights_only.
WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
LOAD_ERRORS = (RuntimeError, OSError, KeyError, ValueError, EOFError, pickle.UnpicklingError, SafetensorError)
MAX_MESSAGE_CHARS = 2000


def resolve(config: EmbedConfig) -> EmbedConfig:
    """Replace every "auto" by what this machine stands for, so that it can stand in an identity.

    It depends on the kind of device and CPU and on the presence of a compiler, never on a timing. The driver
    resolves once; workers load what it resolved.
    """
    if parse_embedder(config.embedder).library in ("gist", "precomputed"):
        # No forward of torch: one identity, whatever is configured for one.
        return EmbedConfig(embedder=config.embedder, dtype="fp32", compile=False, device="cpu")
    device = config.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = config.dtype
    if dtype == "auto":
        dtype = "bf16" if device == "cuda" or has_bf16() else "fp32"
    compile_ = config.compile
    if compile_ == "auto":
        compile_ = device == "cpu" and shutil.which("g++") is not None
    return config.model_copy(update={"device": device, "dtype": dtype, "compile": compile_})


def identity(config: EmbedConfig) -> dict[str, Any]:
    """What a part's identity takes in of a model: the resolved config and the digest of a weights file."""
    spec = parse_embedder(config.embedder)
    fields = resolve(config).model_dump(mode="json")
    if spec.library == "vit":
        from pipelines.models.own_vit import digest_of_weights

        fields["embedder"] = f"vit:@sha256:{digest_of_weights(spec.weights)}"
    elif spec.library == "sscd":
        from pipelines.models.sscd_weights import sscd_identity

        fields["embedder"] = sscd_identity(spec)
    elif _is_file(spec):
        # The same weights elsewhere are the same model.
        digest, _ = storage.sha256_file(spec.weights)
        fields["embedder"] = f"{spec.library}:{spec.model}@sha256:{digest}"
    return fields


def load_embedder(config: EmbedConfig) -> Embedder | None:
    """Build the embedder that a config names; None for `precomputed`, whose vectors are looked up by key.

    Raises:
        ConfigError: an unknown architecture, a device that is not there, or a size that a model cannot take.
        ModelError: weights that are missing, unsafe, or do not cover the model.
    """
    config = resolve(config)
    spec = parse_embedder(config.embedder)
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "No CUDA device", got="device: cuda", expected="device: cpu or auto on this machine"
        )
    match spec.library:
        case "precomputed":
            return None
        case "gist":
            return Gist()
        case "open_clip":
            return _wrap(config, *_open_clip(spec, config.image_size_px))
        case "timm":
            return _wrap(config, *_timm(spec, config.image_size_px))
        case "vit":
            from pipelines.models.own_vit import load_tower

            return _wrap(config, *load_tower(spec.weights, image_size_px=config.image_size_px))
        case "sscd":
            from pipelines.models.sscd_weights import load_sscd
            from pretrain.data.augment import IMAGENET_MEAN, IMAGENET_STD

            model, view = load_sscd(spec), sscd_view(config.image_size_px)
            return _wrap(config, model.trunk, view, IMAGENET_MEAN, IMAGENET_STD, head=model.head)


Tower = tuple[nn.Module, View, tuple[float, ...], tuple[float, ...]]  # module, its view, mean, std


def _wrap(
    config: EmbedConfig,
    tower: nn.Module,
    view: View,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    *,
    head: nn.Module | None = None,
) -> TorchEmbedder:
    assert config.dtype != "auto" and config.compile != "auto"  # noqa: PT018
    return TorchEmbedder(
        config.embedder,
        tower,
        view=view,
        mean=mean,
        std=std,
        dtype=config.dtype,
        compile_=config.compile,
        batch_rows=config.batch_rows,
        threads=config.threads,
        device=config.device,
        head=head,
    )


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
            if _is_file(spec):
                tags = open_clip.list_pretrained_tags_by_model(spec.model)
                near = difflib.get_close_matches(spec.weights, tags, n=5, cutoff=0.5) or tags
                _check_file(spec.weights, expected=", ".join(near))


def create_open_clip(spec: EmbedderSpec, image_size_px: int | None = None) -> Any:
    """An open_clip model with its weights, both towers.

    Raises:
        ConfigError: no such architecture.
        ModelError: weights that are missing, unsafe, or do not cover the model.
    """
    import open_clip

    require_model(spec)
    try:
        return open_clip.create_model(
            spec.model,
            spec.weights,
            require_pretrained=True,
            weights_only=True,
            force_image_size=image_size_px,
        )
    except LOAD_ERRORS as error:
        raise no_fit(spec, error) from error


def _open_clip(spec: EmbedderSpec, image_size_px: int | None) -> Tower:
    from open_clip.transform import PreprocessCfg

    tower: Any = create_open_clip(spec, image_size_px).visual
    if getattr(tower, "output_tokens", False):  # CoCa's towers give their tokens as well
        tower.output_tokens = False
    cfg = PreprocessCfg(**tower.preprocess_cfg)
    sides = {cfg.size} if isinstance(cfg.size, int) else set(cfg.size)
    resize = {"shortest": "crop", "squash": "squash"}.get(cfg.resize_mode)
    view = _view(spec, sides, resize, cfg.interpolation)
    return tower, view, tuple(cfg.mean), tuple(cfg.std)


def _timm(spec: EmbedderSpec, image_size_px: int | None) -> Tower:
    from timm.data import resolve_data_config

    require_model(spec)
    load = _timm_from_file if spec.weights else _timm_from_hub
    try:
        tower = load(spec, image_size_px)
    except TypeError as error:
        if "img_size" not in str(error):
            raise
        tower = load(spec, None)  # a convolutional net takes any side
    except LOAD_ERRORS as error:
        raise no_fit(spec, error) from error
    side = {} if image_size_px is None else {"input_size": (3, image_size_px, image_size_px)}
    cfg = resolve_data_config(side, model=tower)
    resize = {"center": "crop", "squash": "squash"}.get(cfg["crop_mode"])
    view = _view(
        spec, set(cfg["input_size"][1:]), resize, cfg["interpolation"], crop_fraction=cfg["crop_pct"]
    )
    return tower, view, tuple(cfg["mean"]), tuple(cfg["std"])


def _timm_from_hub(spec: EmbedderSpec, img_size: int | None) -> nn.Module:
    import timm

    # With its classifier: timm insists on every tensor only when the number of classes is the weights' own.
    tower: Any = timm.create_model(spec.model, pretrained=True, img_size=img_size)
    tower.reset_classifier(0)
    return tower


def _timm_from_file(spec: EmbedderSpec, img_size: int | None) -> nn.Module:
    import timm

    state = timm.models.load_state_dict(spec.weights, weights_only=True)
    cfg = timm.get_pretrained_cfg(spec.model)
    heads = (cfg.classifier if cfg is not None else None) or ()
    for head in (heads,) if isinstance(heads, str) else heads:
        state.pop(f"{head}.weight", None)
        state.pop(f"{head}.bias", None)
    # Through timm's own loader, which knows how foreign layouts of the same weights are converted.
    overlay = {"state_dict": state, "num_classes": 0}
    return timm.create_model(
        spec.model, pretrained=True, num_classes=0, pretrained_cfg_overlay=overlay, img_size=img_size
    )


def _view(
    spec: EmbedderSpec, sides: set[int], resize: Any, interpolation: Any, *, crop_fraction: float = 1.0
) -> View:
    """The view that repeats a library's preprocessing, or an error: a near miss would shift every vector."""
    [side_px, *others] = sides
    resize_px = math.floor(side_px / crop_fraction)
    is_exact = not others and (resize == "crop" or (resize == "squash" and resize_px == side_px))
    if not is_exact or interpolation not in ("bicubic", "bilinear"):
        raise ModelError(
            f"The preprocessing of {spec.library}:{spec.model} cannot be repeated",
            got=f"sides {sorted(sides)} px, resize {resize}, crop {crop_fraction}, {interpolation}",
            expected="a square, centre crop or plain squash, bicubic or bilinear",
        )
    return View(side_px, resize, interpolation, resize_px if resize_px != side_px else None)


def _is_file(spec: EmbedderSpec) -> bool:
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


def no_fit(spec: EmbedderSpec, error: Exception) -> ModelError:
    """The error for weights that a library could not load."""
    text = fault_of(spec.weights, error) if spec.weights else " ".join(str(error).split())
    if missing := re.search(r"Missing key\(s\) in state_dict: (.*?\")\. ", text + " "):
        text = f"missing {missing[1]}" + text.replace(missing[0].strip(), "; also")
    return ModelError(
        f"The weights of {spec.library}:{spec.model} cannot be loaded from {spec.weights or 'its hub tag'}",
        got=text[:MAX_MESSAGE_CHARS],
        expected="every tensor of the model, in its shape, as safetensors or plain tensors",
        remedy="Check that file and architecture belong together",
    )
