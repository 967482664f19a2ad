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

_NO_TEXT = "a list or a mapping stands where a key is wanted"
# A value that only looks like YAML is the usual cause, and `: ` in it the most usual.
_USUAL = (
    "Indent with spaces, close every bracket and quote, and put a value with `: `, ` #` or a special first "
    "character in quotes"
)
_TAGS = "Remove the tag, which begins with `!`, or put the value in quotes: plain values alone are read"
_STAR = "Put text that begins with `*` in quotes"
# What is to be done, by what PyYAML says.
_REMEDIES = (
    (_NO_TEXT, "Write the key as text; what is to be text, such as {{x}} or [x], in quotes"),
    ("another document", "Keep one document: remove a line `---`, and what belongs to the other"),
    ("constructor for the tag", _TAGS),
    ("undefined tag handle", _TAGS),
    ("undefined alias", f"Write &NAME where the value first stands, or: {_STAR}"),
    ("scanning an alias", _STAR),
    ("scanning an anchor", "Put text that begins with `&` in quotes"),
    ("for merging", "After `<<:` name one or several mappings: `<<: *NAME`"),
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

    Raises:
        ConfigError: it is not YAML, stands for too many values, or a key stands twice or is no text; with the
            line.
    """
    stream = io.BytesIO(text) if isinstance(text, bytes) else io.StringIO(text)
    try:
        loader = _Loader(stream)
        root = loader.get_single_node()
        if root is None:
            return None
        if _count_values(root, {}) > MAX_VALUES:  # before anything is made of them
            raise ConfigError(
                f"{where} stands for too many values", expected=f"at most {MAX_VALUES}, aliases written out"
            )
        if twice := sorted(_check_keys(root)):
            raise ConfigError(
                f"{where}: " + "; ".join(said for _, said in twice),
                expected="every key once: of two, one would be ignored",
                remedy="Remove or rename one of the two",
            )
        data = loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        raise _not_yaml(where, error) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        got = " ".join(str(error).replace('"<file>", ', "").split())
        raise ConfigError(f"{where} is not YAML", got=got, remedy=_remedy_unmarked(error)) from error
    return _written_out(data)


def dump_yaml(data: Any) -> str:
    """Plain data as YAML text, from which `parse_yaml` gives the same data."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def _check_keys(root: yaml.Node) -> Iterator[tuple[int, str]]:
    """Make the keys of all mappings text, and tell which stand twice, with the place of the second.

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
                    raise yaml.constructor.ConstructorError(None, None, _NO_TEXT, key.start_mark)
                is_merge = key.tag == _MERGE
                if not is_merge:
                    text = yaml.ScalarNode(_TEXT, key.value, key.start_mark, key.end_mark)
                    node.value[number] = (text, value)
                line = key.start_mark.line + 1
                if before := first.get((is_merge, key.value)):
                    lines = f"lines {before} and {line}" if before != line else f"line {line}"
                    said = f"the key {path}{key.value} stands twice, in {lines}"
                    yield key.start_mark.index, said
                first.setdefault((is_merge, key.value), line)
                inner.append((value, path if is_merge else f"{path}{key.value}."))
        waiting += reversed(inner)


def _not_yaml(where: str, error: yaml.MarkedYAMLError) -> ConfigError:
    mark = error.problem_mark or error.context_mark
    line = "" if mark is None else f", line {mark.line + 1}, column {mark.column + 1}"
    got = " ".join(part for part in (error.problem, error.context and f"({error.context})") if part)
    remedy = next((remedy for said, remedy in _REMEDIES if said in got), _USUAL)
    return ConfigError(f"{where}{line}: this is not YAML", got=got, remedy=remedy)


def _remedy_unmarked(error: Exception) -> str:
    if not isinstance(error, yaml.reader.ReaderError):
        return ""
    if error.encoding == "unicode":
        return "Remove the character, or write it as \\xNN or \\uNNNN in double quotes"
    return "Save the file as UTF-8"


def _count_values(node: yaml.Node, known: dict[int, int]) -> int:
    """How many values a node stands for with all aliases and merges written out; of too many, a few too many.

    Args:
        known: the counts by node, filled here; a node that is being counted stands for more than any number.
    """
    if id(node) in known:
        return known[id(node)]
    known[id(node)] = MAX_VALUES + 1
    inner: list[yaml.Node] = []
    if isinstance(node, yaml.SequenceNode):
        inner = node.value
    elif isinstance(node, yaml.MappingNode):
        inner = [value for _, value in node.value]
    count = 1
    for value in inner:
        count = min(count + _count_values(value, known), MAX_VALUES + 1)
    known[id(node)] = count
    return count


def _written_out(data: Any) -> Any:
    """The same data with a value of its own for every alias: to set one of them sets no other."""
    if isinstance(data, dict):
        return {key: _written_out(value) for key, value in data.items()}
    return [_written_out(value) for value in data] if isinstance(data, list) else data
