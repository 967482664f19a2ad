"""Every step's settings and tasks, found in the code: each field counts, or says why it does not."""

import importlib
import inspect
import pkgutil
from dataclasses import dataclass, field, fields, is_dataclass, make_dataclass
from typing import Any, get_args, get_origin, get_type_hints

import pytest

import pipelines.stages
from pipelines.engine.digest import Unhashed, digest_of, marks_of, rules_of
from pipelines.engine.step import NoSettings, Work


def loaders() -> dict[str, tuple[type, type]]:
    """Settings and task of every function that builds a step's work, by its name."""
    found = {}
    for info in pkgutil.walk_packages(pipelines.stages.__path__, "pipelines.stages."):
        module = importlib.import_module(info.name)
        for name, function in vars(module).items():
            if inspect.isfunction(function) and function.__module__ == info.name:
                hints = get_type_hints(function)
                made = hints.pop("return", None)
                if get_origin(made) is get_origin(Work) and "Attempt" in str(made):
                    [settings] = hints.values()
                    [[attempt], _facts] = get_args(made)
                    [task] = get_args(attempt)
                    found[f"{info.name.removeprefix('pipelines.stages.')}.{name}"] = (settings, task)
    return found


LOADERS = loaders()
KINDS = sorted({kind for pair in LOADERS.values() for kind in pair}, key=str)


@dataclass(frozen=True)
class Mark:
    """Stands for any value that counts."""

    digest: str = "counts"


def empty(kind: type, **values: Any) -> Any:
    """A dataclass with nothing in any field but those that are given."""
    made = object.__new__(kind)
    for name in (one.name for one in fields(kind)):
        object.__setattr__(made, name, values.get(name))
    return made


def test_the_steps_are_found() -> None:
    assert len(set(LOADERS.values())) > 30  # the loader of a driver, and the one that it calls, are one
    assert all(is_dataclass(kind) and kind.__dataclass_params__.frozen for kind in KINDS)  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__qualname__)
def test_a_field_that_is_added_changes_the_digest(kind: type) -> None:
    more = make_dataclass("More", [("added", int, field(default=1))], bases=(kind,), frozen=True)
    assert digest_of(empty(more, added=1)) != digest_of(empty(kind))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__qualname__)
def test_each_field_counts_or_says_why_not(kind: type) -> None:
    counting = dict(rules_of(kind))
    for one in fields(kind):
        mark = marks_of(kind).get(one.name)
        if isinstance(mark, Unhashed):
            assert len(mark.why.split()) > 2, f"{one.name}: {mark.why}"
            assert one.name not in counting
        elif mark is None:
            assert digest_of(empty(kind, **{one.name: Mark()})) != digest_of(empty(kind)), one.name
        else:
            assert counting[one.name] is mark


def test_settings_and_task_are_two_things() -> None:
    """An item's task is read once an item, settings once a worker: one class for both would tell neither."""
    assert not {s for s, _ in LOADERS.values()} & {t for _, t in LOADERS.values()} - {NoSettings}
