"""YAML as people mean it: every key once, keys are text, `1e6` is a number and `no` is a word.

PyYAML reads YAML 1.1, and keeps the last of two equal keys. There `1e6` is text, `010` is eight, `1:30` is
ninety, a pool that is called `no` is called False, and a date is a date.
"""

import io
import re
from collections.abc import Iterator
from typing import Any

import yaml

from curation.errors import ConfigError

# A megabyte of YAML can stand for any number of values: an alias of an alias of an alias.
MAX_VALUES = 100_000

_TEXT, _MERGE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"
_FLOAT = re.compile(
    r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?$"
    r"|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+$"
    r"|[-+]?\.(?:inf|Inf|INF)$|\.(?:nan|NaN|NAN)$"
)
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9_]*|0x[0-9a-fA-F][0-9a-fA-F_]*|0o[0-7][0-7_]*)$")
_BREAKS = re.compile("[\x85\u2028\u2029]")
_KINDS = (
    ("bool", re.compile(r"(?:true|True|TRUE|false|False|FALSE)$"), "tTfF"),
    ("null", re.compile(r"(?:~|null|Null|NULL|)$"), ("~", "n", "N", "")),
    ("int", _INT, "-+0123456789"),
    ("float", _FLOAT, "-+0123456789."),
    ("merge", re.compile(r"<<$"), "<"),
)

_Resolvers = dict[str, list[tuple[str, re.Pattern[str]]]]


def _resolvers(before: _Resolvers) -> _Resolvers:
    """What text without quotes may stand for, by its first character, as PyYAML keeps it."""
    found = {first: list(several) for first, several in before.items()}
    for kind, pattern, firsts in _KINDS:
        for first in firsts:
            found.setdefault(first, []).append((f"tag:yaml.org,2002:{kind}", pattern))
    return found


class _Loader(yaml.SafeLoader):
    """What is no number, `true`, `false` or `null` is text: a field of numbers or a switch still reads it."""

    yaml_implicit_resolvers = _resolvers({})


class _Dumper(yaml.SafeDumper):
    """Puts in quotes what either version of YAML would take for something else than text."""

    yaml_implicit_resolvers = _resolvers(yaml.SafeDumper.yaml_implicit_resolvers)

    def represent_scalar(self, tag: str, value: Any, style: str | None = None) -> yaml.ScalarNode:
        """PyYAML writes the rarer line breaks as they are, where a reader takes them for spaces."""
        return super().represent_scalar(tag, value, '"' if _BREAKS.search(value) else style)


def parse_yaml(text: bytes | str, *, where: str) -> Any:
    """The plain data that YAML text stands for.

    Args:
        text: of one document.
        where: the file or the flag that it is of.

    Raises:
        ConfigError: it is not YAML, stands for too many values, or a key stands twice; with the line.
    """
    stream = io.BytesIO(text) if isinstance(text, bytes) else io.StringIO(text)
    try:
        loader = _Loader(stream)
        root = loader.get_single_node()
        if root is None:
            return None
        if twice := list(_check_keys(root)):
            raise ConfigError(
                f"{where}: " + "; ".join(twice),
                expected="every key once: of two, one would be ignored",
                remedy="Remove or rename one of the two",
            )
        data = loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        raise _not_yaml(where, error) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        got = " ".join(str(error).replace('"<file>", ', "").split())
        raise ConfigError(f"{where} is not YAML", got=got) from error
    if _count_values(data) > MAX_VALUES:
        raise ConfigError(
            f"{where} stands for too many values", expected=f"at most {MAX_VALUES}, aliases written out"
        )
    return _written_out(data)


def dump_yaml(data: Any) -> str:
    """Plain data as YAML text, from which `parse_yaml` gives the same data."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def _check_keys(root: yaml.Node) -> Iterator[str]:
    """Make the keys of all mappings text, and tell which stand twice, in the order of the text.

    It goes over the nodes before anything is made of them: then merged keys (`<<`) are still apart.
    """
    waiting: list[tuple[yaml.Node, str]] = [(root, "")]
    seen: set[int] = set()
    while waiting:
        node, path = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        inner: list[tuple[yaml.Node, str]] = []
        if isinstance(node, yaml.SequenceNode):
            inner = [(item, f"{path}{number}.") for number, item in enumerate(node.value)]
        elif isinstance(node, yaml.MappingNode):
            first: dict[tuple[bool, str], int] = {}
            for number, (key, value) in enumerate(node.value):
                if not isinstance(key, yaml.ScalarNode):
                    continue  # no setting is called so, which whoever reads the data says
                is_merge = key.tag == _MERGE
                if not is_merge:
                    text = yaml.ScalarNode(_TEXT, key.value, key.start_mark, key.end_mark)
                    node.value[number] = (text, value)
                line = key.start_mark.line + 1
                if before := first.get((is_merge, key.value)):
                    yield f"the key {path}{key.value} stands twice, in lines {before} and {line}"
                first.setdefault((is_merge, key.value), line)
                inner.append((value, path if is_merge else f"{path}{key.value}."))
        waiting += reversed(inner)


def _not_yaml(where: str, error: yaml.MarkedYAMLError) -> ConfigError:
    mark = error.problem_mark or error.context_mark
    line = "" if mark is None else f", line {mark.line + 1}, column {mark.column + 1}"
    # A value that only looks like YAML is the usual cause, and `: ` in it the most usual.
    return ConfigError(
        f"{where}{line}: this is not YAML",
        got=" ".join(part for part in (error.problem, error.context and f"({error.context})") if part),
        remedy="Indent with spaces, close every bracket and quote, and put a value with `: `, ` #` or a "
        "special first character in quotes",
    )


def _count_values(data: Any) -> int:
    """How many values there are with all aliases written out; the counting ends where there are too many."""
    waiting, count = [data], 0
    while waiting and count <= MAX_VALUES:
        value = waiting.pop()
        count += 1
        if isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return count


def _written_out(data: Any) -> Any:
    """The same data with a value of its own for every alias: to set one of them sets no other."""
    if isinstance(data, dict):
        return {key: _written_out(value) for key, value in data.items()}
    return [_written_out(value) for value in data] if isinstance(data, list) else data
