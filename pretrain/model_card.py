"""The card of a model: what it is, what it was trained on and how, what it is worth, and under which licence.

In the form of a Hugging Face README.md: YAML between two lines of dashes, then Markdown. Names and settings
come from strangers, and are written as text: nothing in them becomes a link, an image, HTML or YAML.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any

from curation.errors import ConfigError
from curation.printed import redact, visible
from pretrain.origin import Origin

UNKNOWN = "unknown"
_LICENSE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+_-]{0,63}")
_MARKS = re.compile(r"([\\`*\[\]<>#!|~&$])")
TAGS = ("image-feature-extraction", "self-supervised-learning", "dinov2", "lvd")


@dataclass(frozen=True)
class Model:
    """What the file itself is."""

    title: str
    library: str  # that opens it, as Hugging Face calls it
    backbone: str  # its kind
    config: Any  # a dataclass, or a mapping
    num_parameters: int
    taken: Mapping[str, Any]  # what it takes and gives


def require_license(license_id: str | None) -> None:
    """See that a licence is an identifier, such as those of SPDX and Hugging Face.

    Raises:
        ConfigError: when it is not.
    """
    if license_id is not None and not _LICENSE.fullmatch(license_id):
        raise ConfigError(
            "A licence is given by its identifier",
            got=repr(license_id),
            expected="such as apache-2.0, cc-by-nc-4.0 or other",
        )


def card_of(model: Model, origin: Origin, *, license_id: str | None) -> str:
    """The card as text.

    Args:
        model: what the file is.
        origin: where its weights come from.
        license_id: of the weights; None: nobody has said, and so the card says that it is unknown.
    """
    parts = [
        _front_matter(model, origin, license_id),
        f"# {_text(model.title)}",
        f"A backbone ({_text(model.backbone)}) that turns images into vectors, exported by lvd.",
        _table("Model", {"parameters": f"{model.num_parameters:,}", **_fields(model.config)}),
        _table("Input and output", model.taken),
        *_training(origin),
        *_dataset(origin),
        *_scores(origin),
        f"## Licence\n\n{_licence(license_id)}",
    ]
    if origin.unknown:
        parts.append("## What could not be read\n\n" + "\n".join(f"- {_text(one)}" for one in origin.unknown))
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(model: Model, origin: Origin, license_id: str | None) -> str:
    """Every value as JSON, which is YAML without a surprise."""
    names = [visible(redact(str(one["name"]))) for one in origin.manifests if one.get("name")]
    fields = {
        "license": (license_id or UNKNOWN).lower(),
        "library_name": model.library,
        "pipeline_tag": "image-feature-extraction",
        "tags": list(TAGS),
        **({"datasets": names} if names else {}),
    }
    lines = [
        f"{key}: {json.dumps(visible(redact(value)) if isinstance(value, str) else value)}"
        for key, value in fields.items()
    ]
    return "\n".join(["---", *lines, "---"])


def _training(origin: Origin) -> Iterator[str]:
    facts = origin.facts
    if not facts:
        yield "## Training\n\nUnknown: the weights were not exported from a checkpoint of lvd."
        return
    known = {key: facts[key] for key in ("step", "images_seen", "num_ranks", "torch") if key in facts}
    told = {"run": origin.name, **known, "checkpoint (SHA-256 of its COMPLETE.json)": origin.marker_sha256}
    yield _table("Training", told)
    if origin.ancestors:
        rows = [(one.step, one.sha256, one.state) for one in origin.ancestors]
        yield "It began with another checkpoint, that with the next; by the SHA-256 of each COMPLETE.json:"
        yield _rows(("step", "SHA-256", "now"), rows)
    if isinstance(settings := facts.get("identity"), Mapping):
        yield _table("Settings", _flat(settings), level=3)


def _dataset(origin: Origin) -> Iterator[str]:
    identity = origin.facts.get("identity")
    earlier = identity.get("dataset_sha256") if isinstance(identity, Mapping) else None
    yield _table("Dataset", {"SHA-256 over its shards": origin.facts.get("dataset", earlier)})
    for manifest in origin.manifests:
        fields: Mapping[str, Any] = manifest  # one of an earlier version has not all
        keys = ("name", "created", "config_sha256", "code_version", "seed", "complete")
        told = {key: fields[key] for key in keys if key in fields}
        told["images"] = sum(int(shard.get("num_samples", 0)) for shard in manifest["shards"])
        told |= {f"counts.{key}": value for key, value in _flat(fields.get("counts", {})).items()}
        yield _table("Its manifest", told, level=3)


def _scores(origin: Origin) -> Iterator[str]:
    if not origin.look and origin.evaluation is None:
        yield "## Scores\n\nNone were measured."
        return
    if origin.look:
        yield _table("Scores while it was trained (the last look of the probe)", origin.look)
    if origin.evaluation is not None:
        yield _table("Scores of `lvd evaluate`", _flat(origin.evaluation))


def _licence(license_id: str | None) -> str:
    if license_id is None:
        return "Unknown: nobody has said under which licence these weights may be used."
    return f"{_text(license_id)}, as whoever exported the model has said."


def _fields(config: Any) -> dict[str, Any]:
    if is_dataclass(config) and not isinstance(config, type):
        return asdict(config)
    return dict(config) if isinstance(config, Mapping) else {}


def _flat(data: Any, name: str = "") -> dict[str, Any]:
    """Every value of nested data by its dotted name."""
    match data:
        case Mapping():
            parts = [(str(key), value) for key, value in data.items()]
        case list() | tuple() if any(isinstance(one, Mapping | list) for one in data):
            parts = [(str(number), value) for number, value in enumerate(data)]
        case _:
            return {name or "value": data}
    found: dict[str, Any] = {}
    for key, value in parts:
        found |= _flat(value, f"{name}.{key}" if name else key)
    return found


def _table(heading: str, told: Mapping[str, Any], *, level: int = 2) -> str:
    rows = [(key, value) for key, value in told.items() if value not in (None, "", (), [], {})]
    body = _rows(("", ""), rows) if rows else "Unknown."
    return f"{'#' * level} {heading}\n\n{body}"


def _rows(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *([_text(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _text(value: Any) -> str:
    """A value as Markdown that shows it and does nothing."""
    text = value if isinstance(value, str) else UNKNOWN if value is None else json.dumps(value, default=str)
    shown = _MARKS.sub(r"\\\1", visible(redact(text)))
    # A URL or an address would become a link by itself.
    return shown.replace("://", "&#58;//").replace("@", "&#64;").replace("www.", "www&#46;")
