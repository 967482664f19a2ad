"""What stands for a model in an identity. A dry run asks for it, and loads no model."""

import shutil

from curation import storage
from curation.describe.describe import DescribeConfig
from curation.describe.embed import EmbedConfig, EmbedderSpec, parse_embedder
from curation.describe.heads_config import PromptsHead, WeightsHead
from pipelines.models.known_models import is_file
from pipelines.models.own_weights import digest_of_weights
from pipelines.models.pinned_files import digest_of_pinned, vouched_digest

WITHOUT_FORWARD = ("gist", "precomputed")


def resolve(config: EmbedConfig) -> EmbedConfig:
    """Replace every "auto" by what this machine stands for, so that it can stand in an identity.

    It depends on the kind of device and CPU and on the presence of a compiler, never on a timing. The driver
    resolves once; workers load what it resolved.
    """
    if parse_embedder(config.embedder).library in WITHOUT_FORWARD:
        # No forward of torch: one identity, whatever is configured for one.
        return EmbedConfig(embedder=config.embedder, dtype="fp32", compile=False, device="cpu")
    device = config.device
    if device == "auto":
        device = "cuda" if _has_cuda() else "cpu"
    dtype = config.dtype
    if dtype == "auto":
        dtype = "bf16" if device == "cuda" or _has_bf16() else "fp32"
    compile_ = config.compile
    if compile_ == "auto":
        compile_ = device == "cpu" and shutil.which("g++") is not None
    return config.model_copy(update={"device": device, "dtype": dtype, "compile": compile_})


def _has_cuda() -> bool:
    import torch  # seconds, which no run without a forward waits for

    return torch.cuda.is_available()


def _has_bf16() -> bool:
    from curation.cpu import has_bf16  # torch, as above

    return has_bf16()


def identity(config: EmbedConfig, *, threads: int) -> dict[str, object]:
    """What a part's identity takes in of a model: the resolved config and the digest of a weights file.

    Args:
        config: of the model.
        threads: of a forward, where there is one.
    """
    fields = resolve(config).model_dump(mode="json") | {"embedder": pinned_embedder(config)}
    has_forward = parse_embedder(config.embedder).library not in WITHOUT_FORWARD
    return fields | ({"threads": threads} if has_forward else {})


def pinned_embedder(config: EmbedConfig) -> str:
    """The name of a model, with the digest of its weights in the place of their path."""
    spec = parse_embedder(config.embedder)
    if spec.library == "vit":
        return f"vit:@sha256:{digest_of_weights(spec.weights)}"
    if spec.library == "sscd":
        return sscd_identity(spec)
    if is_file(spec):
        # The same weights elsewhere are the same model.
        digest, _ = storage.sha256_file(spec.weights)
        return f"{spec.library}:{spec.model}@sha256:{digest}"
    return config.embedder


def sscd_identity(spec: EmbedderSpec) -> str:
    """The spec with the bytes of its files in the place of their paths: the same model wherever it lies.

    Raises:
        ModelError: a file is not there, or not the one that was named; a TorchScript archive whose SHA-256 is
            not named.
    """
    text = f"sscd:@sha256:{vouched_digest(spec.weights, spec.sha256)}"
    if spec.whitening:
        text += f",whitening=@sha256:{vouched_digest(spec.whitening, spec.whitening_sha256)}"
    return text


def heads_identity(config: DescribeConfig) -> dict[str, object]:
    """What of the heads changes a score: the bytes of weights wherever they lie; words, and their model."""
    return {name: _head_identity(source, config) for name, source in config.heads.on.items()}


def _head_identity(source: WeightsHead | PromptsHead, config: DescribeConfig) -> dict[str, object]:
    if source.kind == "weights":
        return {"form": source.form, "weights": digest_of_pinned(source.path, source.sha256)}
    model = pinned_embedder(config.heads_embed or config.embed)
    return {"like": list(source.like), "unlike": list(source.unlike), "model": model}
