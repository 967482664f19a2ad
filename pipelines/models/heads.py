"""The heads of a config: that they fit, and how they are loaded."""

from curation.describe.describe import DescribeConfig
from curation.describe.heads import Head
from curation.describe.heads_config import HeadName, scored_embedder
from curation.errors import ConfigError
from pipelines.models.head_weights import load_head
from pipelines.models.precomputed import PrecomputedVectors
from pipelines.models.prompts import embedding_dim, load_prompts


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
