"""Models from their specs and weights: everything that touches a library's hub, file or architecture name.

A library, and what of ours brings weights along, is imported where one of its models is asked for: seconds.
"""

import math
import pickle
import re
from functools import partial
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from curation.describe.embed import EmbedConfig, Embedder, EmbedderSpec, parse_embedder
from curation.describe.gist import Gist
from curation.describe.sscd import sscd_view
from curation.describe.torch_embedder import TorchEmbedder
from curation.errors import ConfigError, ModelError
from curation.pictures.views import View
from pipelines.models.identity import resolve
from pipelines.models.known_models import require_model
from pretrain.pickled import fault_of

LOAD_ERRORS = (RuntimeError, OSError, KeyError, ValueError, EOFError, pickle.UnpicklingError, SafetensorError)
MAX_MESSAGE_CHARS = 2000


def load_embedder(config: EmbedConfig, *, threads: int) -> Embedder | None:
    """Build the embedder that a config names; None for `precomputed`, whose vectors are looked up by key.

    Args:
        config: names it.
        threads: CPU threads of a forward; the order of sums depends on it.

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
    wrap = partial(_wrap, config, threads=threads)
    match spec.library:
        case "precomputed":
            return None
        case "gist":
            return Gist()
        case "open_clip":
            return wrap(*_open_clip(spec, config.image_size_px))
        case "timm":
            return wrap(*_timm(spec, config.image_size_px))
        case "vit":
            from pipelines.models.own_vit import load_tower

            return wrap(*load_tower(spec.weights, image_size_px=config.image_size_px))
        case "sscd":
            from pipelines.models.sscd_weights import load_sscd
            from pretrain.data.augment import IMAGENET_MEAN, IMAGENET_STD

            model, view = load_sscd(spec), sscd_view(config.image_size_px)
            return wrap(model.trunk, view, IMAGENET_MEAN, IMAGENET_STD, head=model.head)


Tower = tuple[nn.Module, View, tuple[float, ...], tuple[float, ...]]  # module, its view, mean, std


def _wrap(
    config: EmbedConfig,
    tower: nn.Module,
    view: View,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    *,
    threads: int,
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
        threads=threads,
        device=config.device,
        head=head,
    )


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
    from timm.data.config import resolve_data_config

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
    without_head: nn.Module = tower
    return without_head


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
