"""Settings as people write them: a YAML file, and `--set` on top of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from curation.errors import ConfigError
from pipelines.config.path_text import expand_paths
from pipelines.config.strict_yaml import parse_yaml

MAX_CONFIG_BYTES = 1 << 20

# Where the configs lie that come with lvd: those of runs, and of both runs and trainings.
FOLDERS = (Path(__file__).parents[1] / "configs",)
ALL_FOLDERS = (*FOLDERS, Path(__file__).parents[2] / "pretrain" / "configs")


def read_config(
    path: str, overrides: Sequence[str], *, folders: Sequence[Path] = FOLDERS
) -> tuple[Path, dict[str, Any]]:
    """The file that `path` names, itself or in one of the folders, and its settings with the overrides.

    `~` and variables in its paths are worked in.

    Raises:
        ConfigError: when it cannot be read, an override leads nowhere, or a variable is not set.
    """
    shipped = [folder / path for folder in folders if (folder / path).is_file()]
    file = shipped[0] if shipped and not Path(path).is_file() else Path(path)
    data = read_yaml(file, folders=folders)
    for override in overrides:
        apply_override(data, override)
    expand_paths(data, where=str(file))
    return file, data


def read_yaml(file: Path, *, folders: Sequence[Path] = FOLDERS) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        ConfigError: when there is no such file, it is too large, or no YAML mapping.
    """
    try:
        with file.open("rb") as stream:
            text = stream.read(MAX_CONFIG_BYTES + 1)
        if len(text) > MAX_CONFIG_BYTES:
            raise ConfigError(
                f"{file} is too large for a config", expected=f"at most {MAX_CONFIG_BYTES} bytes"
            )
    except OSError as error:
        names = ", ".join(sorted(path.name for folder in folders for path in folder.glob("*.yaml")))
        raise ConfigError(
            f"No config can be read at {file}",
            got=error.strerror,
            expected=f"a YAML file, or one of lvd's own: {names}",
        ) from error
    data = parse_yaml(text, where=str(file))
    if not isinstance(data, dict):
        raise ConfigError(
            f"{file} holds no settings", got=type(data).__name__, expected="a mapping of settings"
        )
    return data


def apply_override(data: dict[str, Any], override: str) -> None:
    """Set one field in place: `pools.web.sources.0.path=/data/web`.

    Raises:
        ConfigError: when it is not of that form, has no value, or leads into something that has no fields.
    """
    name, sep, text = override.partition("=")
    if not sep or not name:
        raise ConfigError(
            "--set is not understood",
            got=override,
            expected="--set FIELD=VALUE, such as --set dedup.phash_radius=4",
        )
    if not text.strip():  # as of a shell's variable that is not set
        raise ConfigError(
            f"--set {name} has no value",
            got="nothing behind the =",
            expected="--set FIELD=VALUE",
            remedy=f"Give one; --set {name}=null for none, or --set \"{name}=''\" for an empty text",
        )
    value = parse_yaml(text, where=f"--set {name}")
    *path, last = name.split(".")
    here: Any = data
    for i, step in enumerate(path):
        if isinstance(here, dict):
            if here.get(step) is None:  # a stage that is named and left empty is a mapping too
                here[step] = {}
            here = here[step]
        elif isinstance(here, list) and step.isdigit() and int(step) < len(here):
            here = here[int(step)]
        else:
            raise _no_such_field(override, ".".join(path[: i + 1]))
    if isinstance(here, dict):
        here[last] = value
    elif isinstance(here, list) and last.isdigit() and int(last) <= len(here):
        here[int(last) : int(last) + 1] = [value]
    else:
        raise _no_such_field(override, name)


def _no_such_field(override: str, at: str) -> ConfigError:
    return ConfigError(
        f"--set {override}: there is nothing at {at}", expected="the name of a field, or an index of a list"
    )
