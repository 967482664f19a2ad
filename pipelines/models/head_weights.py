"""Heads from files of their tensors: LAION's published ones, and any single layer."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from curation.describe.heads import Head, Layer
from curation.describe.heads_config import WeightsHead
from curation.errors import ModelError
from pipelines.models.pinned_files import digest_of_pinned
from pretrain.model.keys_official import flatten
from pretrain.weights import read_state

# LAION's detector for ViT-H/14 has no ReLU before its last two layers.
H14_PLAIN_LAYERS = 2
NUMBER = re.compile(r"\d+")


def load_head(source: WeightsHead) -> Head:
    """A head in fp32, on the CPU.

    Args:
        source: the file, and what stands between its tensors.

    Raises:
        ModelError: a file that is not there, is another than the one named, or cannot be read; tensors that
            make no such head.
    """
    digest_of_pinned(source.path, source.sha256)
    state = {name: tensor.float() for name, tensor in flatten(read_state(source.path)[0]).items()}
    centre, variance = _standardisation(source, state)
    pairs = _layers(source, state)
    _check_chain(source, pairs, centre, variance)
    match source.form:
        case "linear" | "aesthetic_v2":
            relus = [False] * len(pairs)
        case "nsfw_l14":
            relus = [True] * (len(pairs) - 1) + [False]
        case "nsfw_h14":
            relus = [number < len(pairs) - H14_PLAIN_LAYERS for number in range(len(pairs))]
    layers = tuple(Layer(weight, bias, relu) for (weight, bias), relu in zip(pairs, relus, strict=True))
    return Head(layers, source.form == "nsfw_l14", centre, variance)


def _standardisation(source: WeightsHead, state: Mapping[str, Tensor]) -> tuple[Tensor | None, Tensor | None]:
    """Mean and variance of the input: of Keras' layer `Normalization`, as ports of the detector name them."""
    if source.form != "nsfw_l14":
        return None, None
    found = [
        [tensor for name, tensor in state.items() if name.rpartition(".")[2] == part]
        for part in ("mean", "variance")
    ]
    if [len(tensors) for tensors in found] != [1, 1]:
        raise _no_head(source, state, expected="one tensor `mean` and one `variance`, and layers")
    return found[0][0].flatten(), found[1][0].flatten()


def _layers(source: WeightsHead, state: Mapping[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Weight and bias of every layer, in the order of the numbers in their names."""
    names = [name.removesuffix("weight") for name in state if re.fullmatch(r"(.*\.)?weight", name)]
    names.sort(key=lambda name: [int(digits) for digits in NUMBER.findall(name)])
    known = {f"{name}{part}" for name in names for part in ("weight", "bias")}
    around = ("mean", "variance") if source.form == "nsfw_l14" else ()
    others = {name for name in state if name not in known and name.rpartition(".")[2] not in around}
    has_all = known <= state.keys() and not others
    if not names or not has_all or (source.form == "linear" and len(names) != 1):
        raise _no_head(source, state, expected="a weight and a bias for every layer, and nothing else")
    return [(state[f"{name}weight"], state[f"{name}bias"]) for name in names]


def _check_chain(
    source: WeightsHead,
    pairs: list[tuple[Tensor, Tensor]],
    centre: Tensor | None,
    variance: Tensor | None,
) -> None:
    shapes = [tuple(weight.shape) for weight, _ in pairs]
    is_whole = all(len(shape) == 2 for shape in shapes) and all(
        tuple(bias.shape) == shape[:1] for (_, bias), shape in zip(pairs, shapes, strict=True)
    )
    ends = [shape[0] for shape in shapes] if is_whole else []
    is_chain = is_whole and ends[:-1] == [shape[1] for shape in shapes[1:]] and ends[-1] == 1
    around = [x for x in (centre, variance) if x is not None]
    is_finite = all(torch.isfinite(x).all() for x in (*around, *(x for pair in pairs for x in pair)))
    is_variance = variance is None or bool((variance >= 0).all())
    fits = is_chain and all(x.shape == (shapes[0][1],) for x in around)
    if not fits or not is_finite or not is_variance:
        raise ModelError(
            f"The layers in {source.path} make no head of the form {source.form}",
            got=", ".join(f"{tuple(w.shape)} + {tuple(b.shape)}" for w, b in pairs),
            expected="finite layers, each as wide as the one before gives, down to one number; a variance "
            "that is not negative",
            remedy="Give the file that the form is named for",
        )


def _no_head(source: WeightsHead, state: Mapping[str, Tensor], *, expected: str) -> ModelError:
    return ModelError(
        f"{source.path} holds no head of the form {source.form}",
        got=", ".join(sorted(state)[:20]),
        expected=expected,
        remedy="Give another form, or the file that this form is named for",
    )
