"""Which heads score an embedding (NSFW, aesthetic, watermark), and where they come from."""

from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator

from curation.describe.embed import EmbedderName, EmbedderSpec, PinnedFile, parse_embedder, parse_pinned

HeadName = Literal["nsfw", "aesthetic", "watermark"]
HEADS: tuple[HeadName, ...] = get_args(HeadName)
Form = Literal["linear", "aesthetic_v2", "nsfw_l14", "nsfw_h14"]

# The published heads are trained on CLIP; a file may hold CLIP's embeddings as well.
SCORED = ("open_clip", "precomputed")


class WeightsHead(BaseModel):
    """A head that was trained on the embedding, from a file of its tensors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["weights"] = Field(description="`weights`")
    weights: PinnedFile = Field(
        min_length=1,
        description="FILE[@SHA256] with the head's tensors: safetensors, or a state_dict of torch",
    )
    form: Form = Field(
        description="what stands between the tensors: `linear` (one layer: LAION's first aesthetic predictor "
        "or any probe), `aesthetic_v2` (LAION's improved aesthetic predictor: layers with nothing between), "
        "`nsfw_l14` (LAION's CLIP-based NSFW detector for ViT-L/14: standardised, ReLU, a probability) or "
        "`nsfw_h14` (the one for ViT-H/14: ReLU before the last two layers, a plain number)"
    )

    @property
    def path(self) -> str:
        """The file."""
        return parse_pinned(self.weights)[0]

    @property
    def sha256(self) -> str:
        """That the file must have, in lower-case hex; empty where none is named."""
        return parse_pinned(self.weights)[1]


class PromptsHead(BaseModel):
    """A head made of words: how much more a picture is like the ones than like the others."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["prompts"] = Field(description="`prompts`")
    like: tuple[str, ...] = Field(min_length=1, description="descriptions of what is scored high")
    unlike: tuple[str, ...] = Field(min_length=1, description="descriptions of everything else")


HeadSource = Annotated[WeightsHead | PromptsHead, Field(discriminator="kind")]


class HeadsConfig(BaseModel):
    """Scores of what an image shows, made from its embedding; their thresholds are in `judge`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    embedder: EmbedderName | None = Field(
        None,
        description="what heads look at: open_clip:ARCH/PRETRAINED_OR_PATH or precomputed:FILE.parquet; null "
        "or the embedder itself: its embedding, with no second forward",
    )
    nsfw: HeadSource | None = Field(None, description="scores what is not safe for work; null: off")
    aesthetic: HeadSource | None = Field(None, description="scores how pleasing a picture is; null: off")
    watermark: HeadSource | None = Field(None, description="scores visible watermarks; null: off")

    @field_validator("embedder")
    @classmethod
    def _fits_heads(cls, spec: str | None) -> str | None:
        if spec is not None and parse_embedder(spec).library not in SCORED:
            raise ValueError(
                f"heads look at embeddings of open_clip, or at a file of them, and not at {spec}; give "
                "open_clip:ARCH/PRETRAINED_OR_PATH or precomputed:FILE.parquet"
            )
        return spec

    @property
    def on(self) -> dict[HeadName, WeightsHead | PromptsHead]:
        """The heads that are on, in a fixed order."""
        heads = {name: getattr(self, name) for name in HEADS}
        return {name: head for name, head in heads.items() if head is not None}


def check_heads(config: HeadsConfig, embedder: str) -> None:
    """See that every head that is on has an embedding that fits it, as far as names tell.

    Args:
        config: the heads.
        embedder: the spec of `describe.embed.embedder`.

    Raises:
        ValueError: naming the field and what to set.
    """
    spec = scored_embedder(config, embedder)
    for name, head in config.on.items():
        if spec.library not in SCORED:
            raise ValueError(
                f"heads.{name} is on, and the embedder ({embedder}) makes no embedding that fits it; heads "
                "look at embeddings of open_clip, so set describe.heads.embedder (or the embedder itself) "
                "to open_clip:ARCH/PRETRAINED_OR_PATH, or to precomputed:FILE.parquet with such embeddings, "
                f"or remove heads.{name}"
            )
        if head.kind == "prompts" and spec.library != "open_clip":
            raise ValueError(
                f"heads.{name} scores by prompts, which need the text model of the embedder, and a file of "
                "vectors has none; set describe.heads.embedder to open_clip:ARCH/PRETRAINED_OR_PATH, or give "
                "a head of weights"
            )


def scored_embedder(config: HeadsConfig, embedder: str) -> EmbedderSpec:
    """The embedder whose vectors the heads look at, where `embedder` is that of the embedding."""
    return parse_embedder(config.embedder or embedder)
