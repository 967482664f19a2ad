"""What is wrong with a config: each field as `--set` names it, its value, and what is allowed."""

import difflib
import reprlib
from collections.abc import Iterator, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from curation.printed import HIDDEN, redact_url, redacted

_MAX_FAULTS = 20
# Where the drivers of schemes look for credentials.
_SECRETS_OF = {
    ("s3", "s3a"): "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or write them into ~/.aws/credentials",
    ("gs", "gcs"): "set GOOGLE_APPLICATION_CREDENTIALS to the key file of an account",
    ("az", "abfs"): "set AZURE_STORAGE_ACCOUNT_NAME and one of AZURE_STORAGE_SAS_TOKEN, "
    "AZURE_STORAGE_ACCOUNT_KEY and AZURE_STORAGE_CONNECTION_STRING",
}

Loc = Sequence[int | str]


def fault_lines(
    error: ValidationError, root: type[BaseModel], data: dict[str, Any], *, at: str = ""
) -> list[str]:
    """One line for every field that is wrong.

    Args:
        error: of `root.model_validate(data)`.
        root: the model of the whole config, or of a section of it.
        at: where the section stands in the config.
    """
    faults = error.errors(include_url=False)
    lines = []
    for fault in faults[:_MAX_FAULTS]:
        # A tuple that is empty only because its items are wrong is no fault of its own.
        if fault["type"] == "too_short" and fault.get("input"):
            continue
        name = _name(fault["loc"], data, at)
        match fault["type"]:
            case "union_tag_not_found":
                field = str(fault["ctx"]["discriminator"]).strip("'")
                kinds = ", ".join(_kinds_at(fault["loc"], field, root))
                lines.append(f"{name}.{field} is missing; it is one of {kinds}")
            case "missing":
                lines.append(f"{name} is missing")
            case "extra_forbidden":
                lines.append(f"{name}: there is no such field{_allowed(fault['loc'], root)}")
            case "string_type" if isinstance(fault.get("input"), bool | int | float):
                lines.append(f"{name}: text is expected (got {fault['input']}); put it in quotes")
            case "string_type" if "input" in fault and fault["input"] is None:
                lines.append(
                    f"{name}: text is expected (got YAML's null, which a bare ~ and an empty value mean); "
                    "put it in quotes"
                )
            case "value_error":
                lines.append(f"{name}: {fault['msg'].removeprefix('Value error, ')}")
            case _:
                lines.append(f"{name}: {fault['msg']} (got {reprlib.repr(redacted(fault.get('input')))})")
    if len(faults) > _MAX_FAULTS:
        lines.append(f"and {len(faults) - _MAX_FAULTS} more")
    return lines


def _name(loc: Loc, data: Any, at: str) -> str:
    """The path of a field within the data: without the kinds of sources and rules that pydantic puts in."""
    path = [at] if at else []
    here = data
    for number, part in enumerate(loc):
        # An item that is missing from a list is not inside of it.
        is_item = isinstance(part, int) and isinstance(here, list) and part < len(here)
        inside = is_item or (isinstance(here, dict) and part in here)
        if inside:
            here = here[part]
        if inside or number == len(loc) - 1:
            path.append(str(part))
    return ".".join(path) or "the config"


def _allowed(loc: Loc, root: type[BaseModel]) -> str:
    """The fields that may stand where an unknown one does, the likeliest alone if one is likely."""
    names = sorted({name for model in _models_at(loc[:-1], root) for name in model.model_fields})
    if near := difflib.get_close_matches(str(loc[-1]), names, n=1):
        return f"; did you mean {near[0]}?"
    return f"; there are {', '.join(names)}" if names else ""


def _kinds_at(loc: Loc, field: str, root: type[BaseModel]) -> list[str]:
    """What the field that tells several models apart may say."""
    kinds = (
        get_args(m.model_fields[field].annotation) for m in _models_at(loc, root) if field in m.model_fields
    )
    return sorted({str(kind) for several in kinds for kind in several})


def _models_at(loc: Loc, root: type[BaseModel]) -> list[type[BaseModel]]:
    """The models that may stand at a place."""
    models = [root]
    for part in loc:
        inside = [model.model_fields[part].annotation for model in models if part in model.model_fields]
        if inside:
            models = [model for annotation in inside for model in _models_in(annotation)]
        else:  # an index, a pool's name, or the kind that tells which of several models is meant
            models = [model for model in models if part in _kinds(model)] or models
    return models


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models_in(inner)


def _kinds(model: type[BaseModel]) -> set[object]:
    fields = model.model_fields.values()
    return {value for field in fields for value in get_args(field.annotation) if isinstance(value, str)}


def secret_lines(data: Any, *, at: str = "") -> list[str]:
    """One line for every field whose URL carries credentials.

    A config is written into the run directory: without them it would name another source, with them it would
    publish them.
    """
    match data:
        case dict():
            return [line for key, value in data.items() for line in secret_lines(value, at=f"{at}{key}.")]
        case list():
            return [line for i, value in enumerate(data) for line in secret_lines(value, at=f"{at}{i}.")]
        case str() if (shown := redact_url(data)) != data or f"{HIDDEN}@" in data:
            return [
                f"{at.removesuffix('.')}: it carries credentials ({shown}), and the run directory would show "
                f"them; {_instead(shown)}"
            ]
    return []


def _instead(url: str) -> str:
    """What to do in place of credentials in a URL, whose driver is told by its scheme."""
    scheme = url.partition("://")[0].rpartition(":")[2].lower()
    for schemes, secrets in _SECRETS_OF.items():
        if scheme in schemes:
            return f"leave them out, and on every worker {secrets}"
    return "download what it names, and give the path of the file or folder"
