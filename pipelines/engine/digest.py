"""What an output depends on, as a hash derived from the fields of a dataclass.

A step's work reads one frozen dataclass, and an item's identity is the hash of that dataclass: what is read
is what is hashed, and a field that is added changes the hash. What a field counts for is said by its type:

    parts: Annotated[tuple[Part, ...], PlacesOf("described")]   the named files of every part, and its place
    centroids: FileRef                                          the bytes of a file
    threads: Annotated[int, Unhashed("the same bytes on any number of cores")]
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from enum import Enum
from functools import cache
from typing import (
    Annotated,
    Any,
    Protocol,
    TypeVar,
    cast,
    get_args,
    get_origin,
    get_type_hints,
    runtime_checkable,
)

from pydantic import BaseModel


@dataclass(frozen=True)
class Unhashed:
    """Of a field that changes no output."""

    why: str


@dataclass(frozen=True)
class Without:
    """Of a config: fields of it that change no output."""

    names: tuple[str, ...]
    why: str


@runtime_checkable
class Reads(Protocol):
    """Of a field of which the work reads a part: what is hashed of it, and what is handed to the work."""

    def digest(self, value: Any) -> str:
        """Hash of what the work reads."""
        ...

    def narrow(self, value: Any) -> Any:
        """The value with what the work may read alone."""
        ...


@dataclass(frozen=True)
class OfEveryItem:
    """Marks what the items of a step share: all of it counts, and it is hashed once for all of them."""

    def digest(self, value: object) -> str:
        return hashed_once(value, self, lambda: digest_of(value))

    def narrow(self, value: Any) -> Any:
        return value


# Each value is held beside its digest, so that no other one has its id.
_ONCE: dict[tuple[int, object], tuple[object, str]] = {}
_MAX_ONCE = 32


def hashed_once(value: object, by: object, make: Callable[[], str]) -> str:
    """The digest of what stands in every item of a step: `make` is called for the first of them.

    Args:
        value: told by its identity; it is not to be changed.
        by: the mark that it is hashed by.
        make: computes the digest.
    """
    key = (id(value), by)
    held = _ONCE.pop(key, None)
    if held is None or held[0] is not value:
        held = value, make()
        if len(_ONCE) >= _MAX_ONCE:
            _ONCE.pop(next(iter(_ONCE)), None)
    _ONCE[key] = held  # at the end: what is asked for again stays
    return held[1]


def digest_of(*parts: object) -> str:
    """Hash of plain data, of files and receipts, and of dataclasses of them: 32 hex digits."""
    text = json.dumps([plain(part) for part in parts], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def plain(value: object) -> object:
    """What counts of a value, as JSON's own types. Of a mapping the order does not count; of a tuple it does.

    Raises:
        TypeError: for a value of a type that no rule is about.
    """
    if isinstance(digest := getattr(value, "digest", None), str):  # a file, a receipt, and the like
        return digest
    match value:
        case None | bool() | int() | float() | str():
            return value.value if isinstance(value, Enum) else value
        case bytes():
            return value.hex()
        case BaseModel():
            return value.model_dump(mode="json")
        case Mapping():
            return {str(name): plain(one) for name, one in value.items()}
        case frozenset():
            return sorted(map(plain, value), key=str)
        case range():
            return [value.start, value.stop, value.step]
        case list() | tuple():
            return [plain(one) for one in value]
    if is_dataclass(value) and not isinstance(value, type):
        return {name: _plain_field(getattr(value, name), rule) for name, rule in rules_of(type(value))}
    raise TypeError(f"no rule says what counts of a {type(value).__name__}")


Task = TypeVar("Task")


def narrowed(task: Task) -> Task:
    """A task whose fields hold what they are hashed by, and no more: what else is read is found missing.

    Fields of dataclasses within it are handed on as they are.
    """
    cuts = {name: rule for name, rule in marks_of(cast(type, type(task))).items() if isinstance(rule, Reads)}
    found = {name: getattr(task, name) for name in cuts}
    changed = {name: cuts[name].narrow(value) for name, value in found.items() if value is not None}
    return cast(Task, replace(cast(Any, task), **changed))


def _plain_field(value: object, rule: object) -> object:
    if value is None or rule is None:
        return plain(value)
    if isinstance(rule, Without):
        assert isinstance(value, BaseModel), "some fields of a config are left out, and this is none"
        return value.model_dump(mode="json", exclude=set(rule.names))
    assert isinstance(rule, Reads), f"{rule} says nothing of what counts"
    return rule.digest(value)


@cache
def rules_of(kind: type) -> tuple[tuple[str, object], ...]:
    """The fields of a dataclass that change an output, each with the rule for it, or None."""
    marks = marks_of(kind)
    names = [field.name for field in fields(kind)]
    return tuple((name, marks.get(name)) for name in names if not isinstance(marks.get(name), Unhashed))


@cache
def marks_of(kind: type) -> dict[str, object]:
    """The marks that stand in the types of fields."""
    hints = get_type_hints(kind, include_extras=True)
    found: dict[str, object] = {}
    for name, hint in hints.items():
        if get_origin(hint) is Annotated:
            marks = [one for one in get_args(hint)[1:] if isinstance(one, Unhashed | Without | Reads)]
            assert len(marks) <= 1, f"{kind.__name__}.{name} is marked twice"
            if marks:
                found[name] = marks[0]
    return found
