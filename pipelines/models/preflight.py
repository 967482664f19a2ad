"""What a run needs besides its sources, asked for before any image is read: models, weights, packages."""

from curation.describe.describe import DescribeConfig
from curation.describe.embed import parse_embedder
from curation.errors import ConfigError, LvdError, ModelError
from curation.search.installed import load_faiss
from pipelines.models.identity import sscd_identity
from pipelines.models.known_models import require_model


def require_needed(settings: DescribeConfig) -> None:
    """See that every model's name is known, its files are there, and what searches is installed.

    Raises:
        ConfigError: naming the field, what it says, and what comes near.
        ModelError: files of weights that are not there, or not the ones that were named.
    """
    load_faiss()
    if settings.heads.on:
        from pipelines.models.heads import require_heads  # it imports torch

        require_heads(settings)
    fields = {
        "describe.embed.embedder": settings.embed.embedder,
        "describe.descriptor": settings.descriptor,
        "describe.heads.embedder": settings.heads.embedder,
    }
    for field, embedder in fields.items():
        if embedder is None:
            continue
        try:
            _require_model(embedder)
        except (ConfigError, ModelError) as error:
            raise _at(field, error) from error


def _at(field: str, error: LvdError) -> LvdError:
    what = f"{field}: {error.what[0].lower()}{error.what[1:]}"
    return type(error)(what, got=error.got, expected=error.expected, remedy=error.remedy)


def _require_model(embedder: str) -> None:
    spec = parse_embedder(embedder)
    match spec.library:
        case "sscd":
            sscd_identity(spec)
        case "timm" | "open_clip":
            require_model(spec)
