"""Paths as a shell user writes them: `~`, `~user`, `$NAME` and `${NAME}`, in every field that is a path.

They are worked in as settings are read, and only then: what `run.yaml` says, and what identities are made of,
are the paths that they stand for. `$$` is a plain `$`.
"""

import os
import re
from collections.abc import Callable, Sequence
from typing import Any

from curation.errors import ConfigError

# The fields of runs, of trainings, and of trainings within runs; `*` is any name or number.
_TRAINING = (
    "run_dir", "data.path", "data.mix.*.path", "data.spool_dir", "model.weights", "probe.train", "probe.test",
    "sinks.*.dir", "start.checkpoint",
)  # fmt: skip
PATHS = (
    "root",
    "pools.*.sources.*.path",
    "pools.*.sources.*.links.within",
    "pools.*.sources.*.download.blocked_domains.*",
    "describe.heads.*.weights",
    "describe.faces.model",
    *_TRAINING,
    *(f"pretrain.{field}" for field in _TRAINING),
)
# Of the stages after pretraining, and of those within a chain.
STAGE_PATHS = (
    "gram.teacher", "pretrain.gram.teacher", "teacher.path", "students.*.model.weights",
    *(f"adapt.{field}" for field in (*_TRAINING, "gram.teacher")),
    *(f"distill.{field}" for field in (*_TRAINING, "students.*.model.weights")),
    "evaluate.train", "evaluate.test",
)  # fmt: skip
EMBEDDERS = ("describe.embed.embedder", "describe.descriptor", "describe.heads.embedder")

_VARIABLE = re.compile(r"\$(?:(\$)|\{([^}]*)\}|([A-Za-z_][A-Za-z0-9_]*))")
# With a machine's name or none, or without slashes for one.
_FILE_URL = re.compile(r"file:(?://([^/$~]*))?(?=[/$~])", re.IGNORECASE)
# What stands before a path in the name of an embedder.
_BEFORE_PATH = re.compile(r"(?:vit|sscd|precomputed):|timm:[^@]*@|open_clip:[^/]*/|,whitening=")


def expand_paths(data: dict[str, Any], *, where: str) -> None:
    """Work `~` and variables into all paths of plain settings, in place; what is no text stays as it is.

    Raises:
        ConfigError: naming the field and the variable that is not set, or the user that there is not.
    """
    for fields, change in (((*PATHS, *STAGE_PATHS), expand_path), (EMBEDDERS, expand_embedder)):
        for field in fields:
            _change(data, field.split("."), change, at=f"{where}: ")


def expand_path(path: str, *, at: str) -> str:
    """A path with `~` and variables worked in.

    Args:
        path: a local path or a URL.
        at: what the error begins with: where the path stands.

    Raises:
        ConfigError: as `expand_paths` says.
    """
    scheme, plain = _file_url(path, at)
    home = os.path.expanduser(plain)  # noqa: PTH111 — Path would take `~` in the middle, and URLs, apart
    if plain.startswith("~") and home == plain:
        raise ConfigError(
            f"{at}{plain.partition('/')[0]} is nobody's home here",
            got=path,
            expected="~ or the ~name of a user of this machine",
            remedy="Write the path out, or ./~… for a folder of this name",
        )
    return scheme + _VARIABLE.sub(lambda found: _value(found, path, at), home)


def _file_url(path: str, at: str) -> tuple[str, str]:
    """The scheme of a local file's URL, if it is one, and the path in it (RFC 8089, section 2)."""
    if (found := _FILE_URL.match(path)) is None:
        return "", path
    if (found[1] or "").lower() not in ("", "localhost"):
        raise ConfigError(
            f"{at}a file of another machine",
            got=path,
            expected="file:///PATH, or a plain path",
            remedy="Mount its folder here and on every worker, and give that path",
        )
    return "file://", path[found.end() :]


def expand_embedder(spec: str, *, at: str) -> str:
    """The name of an embedder with `~` and variables worked into the paths in it."""
    pieces, start = [], 0
    for found in [*_BEFORE_PATH.finditer(spec), None]:
        end = len(spec) if found is None else found.start()
        piece = spec[start:end]
        pieces.append(expand_path(piece, at=at) if start else piece)
        if found is not None:
            pieces.append(found[0])
            start = found.end()
    return "".join(pieces)


def _value(found: re.Match[str], path: str, at: str) -> str:
    if found[1]:
        return "$"
    name = found[2] if found[3] is None else found[3]
    # An empty one would make `$SCRATCH/run` a folder of the root.
    if value := os.environ.get(name, ""):
        return value
    raise ConfigError(
        f"{at}${name} is not set, or empty",
        got=path,
        expected="the name of a variable of the environment",
        remedy="Set it, or write the path out; a plain $ is written $$",
    )


def _change(data: Any, fields: Sequence[str], change: Callable[..., str], *, at: str) -> None:
    field, *rest = fields
    places: list[Any] = []
    if isinstance(data, dict):
        places = list(data) if field == "*" else [field] if field in data else []
    elif isinstance(data, list) and field == "*":
        places = list(range(len(data)))
    for place in places:
        if rest:
            _change(data[place], rest, change, at=f"{at}{place}.")
        elif isinstance(data[place], str):
            data[place] = change(data[place], at=f"{at}{place}: ")
