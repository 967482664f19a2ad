"""The heads of a config: that they fit, what stands for them in an identity, and how they are loaded."""

from typing import Any

from curation.describe.describe import DescribeConfig
from curation.describe.heads import Head
from curation.describe.heads_config import HeadName, PromptsHead, WeightsHead, scored_embedder
from curation.errors import ConfigError
from curation.ingest.precomputed import PrecomputedVectors
from pipelines.models.embedders import identity
from pipelines.models.head_weights import load_head
from pipelines.models.prompts import embedding_dim, load_prompts
from pipelines.models.sscd_weights import digest_of_pinned


def require_heads(config: DescribeConfig) -> None:
    """See, before any image is read, that the files of heads are there and fit the vectors that they score.

    Raises:
        ConfigError: a head scores vectors of another length than its embedder makes.
        ModelError: a file cannot be read, or is not the one that was named.
    """
    spec = scored_embedder(config.heads, config.embed.embedder)
    for name, source in config.heads.on.items():
        if source.kind == "prompts":
            continue  # the model's own text tower fits it
        dim = load_head(source).dim
        made = embedding_dim(spec) if spec.library == "open_clip" else PrecomputedVectors(spec.weights).dim
        if dim != made:
            raise ConfigError(
                f"describe.heads.{name} does not fit the embeddings that it is to score",
                got=f"a head for vectors of {dim} numbers, and vectors of {made}",
                expected="vectors of one length, from the model that the head was trained on",
                remedy="Set describe.heads.embedder to that model (LAION's heads tell it in their names)",
            )


def heads_identity(config: DescribeConfig) -> dict[str, Any]:
    """What of the heads changes a score: the bytes of weights wherever they lie; words, and their model."""
    return {name: _identity(source, config) for name, source in config.heads.on.items()}


def _identity(source: WeightsHead | PromptsHead, config: DescribeConfig) -> dict[str, Any]:
    if source.kind == "weights":
        return {"form": source.form, "weights": digest_of_pinned(source.path, source.sha256)}
    model = identity(config.heads_embed or config.embed)["embedder"]
    return {"like": list(source.like), "unlike": list(source.unlike), "model": model}


def load_heads(config: DescribeConfig) -> dict[HeadName, Head]:
    """Every head that is on.

    Raises:
        ModelError: one cannot be loaded.
    """
    spec = scored_embedder(config.heads, config.embed.embedder)
    return {
        name: load_head(source) if source.kind == "weights" else load_prompts(spec, source)
        for name, source in config.heads.on.items()
    }
