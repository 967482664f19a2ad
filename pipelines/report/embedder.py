"""Which model made the vectors, said so that nobody overlooks it."""

from dataclasses import dataclass

from curation.describe.describe import DescribeConfig
from curation.describe.embed import parse_embedder


@dataclass(frozen=True)
class EmbedderNote:
    """A sentence or two, and whether they are a warning."""

    name: str
    text: str
    is_warning: bool


def note_embedder(config: DescribeConfig) -> EmbedderNote:
    """What a reader of the report has to know about the vectors behind it."""
    spec = parse_embedder(config.embed.embedder)
    match spec.library:
        case "gist":
            text = (
                "The vectors are gist, the weight-free default: colour layout and oriented gradients. They "
                "know what a picture looks like, not what it shows: “close” is alike in layout and colour. "
                "Clusters and retrieval are much weaker than with a trained model; to use one, set "
                "describe.embed.embedder."
            )
            return EmbedderNote("gist", text, True)
        case "precomputed":
            text = "The vectors were brought along: they were read from this file and not made by this run."
            return EmbedderNote(config.embed.embedder, text, False)
        case "open_clip" | "timm" | "vit" | "sscd":
            text = "A trained model made the vectors behind clusters and retrieval."
            return EmbedderNote(config.embed.embedder, text, False)
