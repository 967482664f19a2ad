"""Writes docs/config.md, the reference of every config field, from the pydantic models.

python docs/make_config_reference.py
"""

import json
import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from pipelines.config.run_config import RunConfig
from pipelines.training.chain_config import ChainConfig
from pretrain.config import PretrainConfig
from pretrain.distill_config import DistillConfig

TARGET = Path(__file__).parent / "config.md"
HEAD = """\
# Every field of a config

Written by `python docs/make_config_reference.py` from the models in the code; do not edit it by hand.

A config is a YAML file. Any field can be set on the command line as well, by its path:
`--set dedup.phash_radius=4`, `--set pools.web.sources.0.path=/data/web`. A field that is not listed here is
an error. A file may leave `run_dir` out: it is `runs/NAME` then. The config of a run, with every default
spelled out, is saved as `run.yaml` in its run directory.

The section `pretrain` is the whole config of a training. It may also be a file of its own, for
`lvd pretrain`; then its fields stand without the prefix `pretrain.`, and `data.path` is needed.
"""
DISTILL = """\
# Distillation

The config of `lvd distill` is a file of its own, whose fields stand without the prefix `distill.`. Sections
that are not listed here have the fields that they have in a training: `distill.crops` those of
`pretrain.crops`.
"""
CHAIN = """\
# Chain

The config of `lvd chain` is a file of its own, whose fields stand without the prefix `chain.`. Its `pretrain`
is the config of a training, `adapt` that of `lvd adapt`, `distill` that of `lvd distill`, except that where a
link begins and where it lies is decided by the chain.
"""
# Bounds as pydantic keeps them with a field, in the order in which they are written.
BOUNDS = (("gt", ">"), ("ge", "≥"), ("lt", "<"), ("le", "≤"))


def main() -> None:
    """Write the file."""
    TARGET.write_text(reference(), encoding="utf-8")


def reference() -> str:
    """The whole page."""
    sections = [HEAD, _section("The config", RunConfig, path="")]
    sections += [_section(f"`{path}`", model, path=path) for path, model in _models(RunConfig, "")]
    # The field is a mapping to RunConfig, which does not import the trainer.
    sections.append(_section("`pretrain`", PretrainConfig, path="pretrain"))
    sections += [
        _section(f"`{path}`", model, path=path) for path, model in _models(PretrainConfig, "pretrain")
    ]
    sections.append(DISTILL)
    sections.append(_section("`distill`", DistillConfig, path="distill"))
    known = {"distill." + path for path, _ in _models(PretrainConfig, "")}
    sections += [
        _section(f"`{path}`", model, path=path)
        for path, model in _models(DistillConfig, "distill")
        if path not in known
    ]
    sections += [CHAIN, _section("`chain`", ChainConfig, path="chain")]
    sections += [_section(f"`{path}`", model, path=path) for path, model in _models(ChainConfig, "chain")]
    return "\n".join(sections)


def _models(model: type[BaseModel], path: str) -> Iterator[tuple[str, type[BaseModel]]]:
    """Every model below `model`, depth first, with the path at which its fields stand."""
    for name, field in model.model_fields.items():
        for below, step in _models_in(field.annotation, name):
            here = f"{path}.{step}" if path else step
            yield here, below
            yield from _models(below, here)


def _models_in(kind: Any, name: str) -> Iterator[tuple[type[BaseModel], str]]:
    """The models that a field may hold, and how its path goes on: by name for a dict, by index for a list."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield kind, name
    elif get_origin(kind) is dict:
        yield from _models_in(get_args(kind)[1], f"{name}.NAME")
    elif get_origin(kind) is tuple:
        yield from _models_in(get_args(kind)[0], f"{name}.N")
    else:
        for option in get_args(kind):
            yield from _models_in(option, name)


def _section(title: str, model: type[BaseModel], *, path: str) -> str:
    tag = _tag(model)
    lines = [f"## {title}{f', {tag}' if tag else ''}", "", (model.__doc__ or "").strip().split("\n")[0], ""]
    lines += ["| field | type | default | meaning |", "|---|---|---|---|"]
    lines += [_row(name, field, path) for name, field in model.model_fields.items()]
    return "\n".join(lines) + "\n"


def _tag(model: type[BaseModel]) -> str:
    """What tells one model of a union from the others: `kind: folder`."""
    for name in ("kind", "method"):
        field = model.model_fields.get(name)
        if field is not None and len(get_args(field.annotation)) == 1:
            return f"`{name}: {get_args(field.annotation)[0]}`"
    return ""


def _row(name: str, field: FieldInfo, path: str) -> str:
    meaning = field.description or ""
    if below := [step for _, step in _models_in(field.annotation, name)]:
        there = f"see `{f'{path}.' if path else ''}{below[0]}`"
        meaning = f"{meaning}; {there}" if meaning else there
    cells = (f"`{name}`", _type(field.annotation) + _bounds(field.metadata), _default(field), _text(meaning))
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _text(meaning: str) -> str:
    """Words as Markdown that shows them as they are, and takes nothing in them for its own marks."""
    pieces = re.split(r"(`[^`]*`)", meaning)
    return "".join(piece if piece[:1] == "`" else _escaped(piece) for piece in pieces)


def _escaped(text: str) -> str:
    return re.sub(r"[\[*]", r"\\\g<0>", text).replace("<", "&lt;")


def _type(kind: Any) -> str:
    origin, options = get_origin(kind), get_args(kind)
    if kind is types.NoneType:
        return "null"
    if origin is Annotated:
        return _type(options[0]) + _bounds(options[1:])
    if origin is Literal:
        return ", ".join(f"`{option}`" for option in options)
    if origin in (Union, types.UnionType):
        if all(isinstance(option, type) and issubclass(option, BaseModel) for option in options):
            return "settings"
        return " or ".join(_type(option) for option in options)
    if origin is dict:
        if options[1] is Any:
            return "settings"
        return f"settings by name, each {_type(options[1])}"
    if origin is tuple:
        return f"list of {_type(options[0])}"
    if issubclass(kind, BaseModel):
        return "settings"
    return {str: "text", int: "whole number", float: "number", bool: "true or false"}[kind]


def _bounds(metadata: Any) -> str:
    found = []
    for constraint in metadata:
        present = [(sign, getattr(constraint, name, None)) for name, sign in BOUNDS]
        found += [f"{sign} {bound:,}" for sign, bound in present if bound is not None]
        if isinstance(constraint, annotated_types.MinLen):
            found.append("not empty")
        pattern = getattr(constraint, "pattern", None)
        found += [f"like `{pattern}`"] if pattern else []
    return f", {', '.join(found)}" if found else ""


def _default(field: FieldInfo) -> str:
    default = field.get_default(call_default_factory=True, validated_data={})
    if default is PydanticUndefined:
        return "needed"
    if isinstance(default, BaseModel):
        return ""
    if isinstance(default, int) and not isinstance(default, bool) and abs(default) >= 10_000:
        return f"`{default:_}`"
    text = default if isinstance(default, str) and default else json.dumps(default)
    return f"`{text}`"


if __name__ == "__main__":
    main()
