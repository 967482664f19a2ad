"""The files that a source holds, in key order."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace

from braceexpand import braceexpand

from curation import storage
from curation.errors import ConfigError, SourceError
from curation.ingest.beside import OtherFiles
from curation.ingest.huggingface import list_huggingface
from curation.ingest.links import real_path, require_inside
from curation.ingest.patterns import asks_for_hidden, matches, split_pattern
from curation.ingest.problems import Findings, Problem, finding_line
from curation.ingest.rows import as_text
from curation.ingest.sources import SUFFIXES, FolderSource, HuggingFaceSource, Source
from curation.ingest.tars.shard_numbers import with_gaps_told
from curation.ingest.walk import WalkRules, walk_source

_NUM_NOTES = 3  # that an empty source is told with


def list_units(
    source: Source, findings: Findings | None = None, *, run_dir: str | None = None
) -> Iterator[storage.FileInfo]:
    """Stream the files to read, in key order: all of a folder, or those of the source's kind.

    Files with other extensions beside tars (parquet files, …) in a folder are left alone, and counted but for
    what commonly lies there (`beside.py`). Numbers that a set of files lacks are noted. A file that the path
    names as it stands is taken whatever its extension.

    Raises:
        SourceError: when there is nothing at the path, or nothing of this kind in it.
        ConfigError: for a path that cannot be meant, or lies out of where links may lead.
    """
    findings = Findings() if findings is None else findings
    is_empty = True
    try:
        for unit in _list(source, findings, run_dir):
            is_empty = False
            yield unit
    except TimeoutError as error:  # its disk may be back when the source is asked again
        findings.problems.append(Problem(as_text(source.path), "unreadable", str(error)))
    except OSError as error:
        raise SourceError(
            f"A source cannot be listed: {storage.redact(source.path)}",
            got=error,
            remedy="Check the permissions of the folder and what lies in it",
        ) from error
    if is_empty and not findings.problems:
        raise _empty(source, findings)


def _list(source: Source, findings: Findings, run_dir: str | None) -> Iterator[storage.FileInfo]:
    if isinstance(source, FolderSource):
        storage.require_dir(source.path)
        rules = WalkRules(source.links, is_sidecar=source.sidecar_rule.admits, run_dir=run_dir)
        yield from walk_source(source.path, rules, findings=findings)
    elif isinstance(source, HuggingFaceSource):
        files = list_huggingface(source, findings, run_dir=run_dir)
        yield from with_gaps_told(files, findings, are_all=True)
    else:
        yield from _list_kind(source, findings, run_dir)


def _empty(source: Source, findings: Findings) -> SourceError:
    suffixes = SUFFIXES.get(source.kind, ())
    got = f"no file that ends in {', '.join(suffixes)}" if suffixes else "no files"
    passed_over = "; ".join(finding_line(asdict(note)) for note in findings.notes[:_NUM_NOTES])
    return SourceError(
        f"A source is empty: {storage.redact(source.path)}",
        got=f"{got} ({passed_over})" if passed_over else got,
        expected="at least one",
        remedy="Check the path and the kind of the source in the config",
    )


def named_in_utf8(files: Iterable[storage.FileInfo], findings: Findings) -> Iterator[storage.FileInfo]:
    """The files that a table can name; the others are problems."""
    for file in files:
        if as_text(file.path) == file.path:
            yield file
        else:
            detail = "its name, or that of its folder, is not UTF-8; rename it"
            findings.problems.append(Problem(as_text(file.path), "name_not_utf8", detail))


def _list_kind(source: Source, findings: Findings, run_dir: str | None) -> Iterator[storage.FileInfo]:
    path, suffixes = source.path, SUFFIXES.get(source.kind, ())
    # A path that exists is meant as it stands, brackets and all.
    if storage.is_dir(path):
        rules = WalkRules(source.links, run_dir=run_dir)
        yield from with_gaps_told(_of_kind(path, suffixes, rules, findings), findings, are_all=True)
    elif storage.exists(path):
        yield require_inside(storage.stat(path), source.links)
    elif any(c in path for c in "{*?["):
        rules = WalkRules(source.links, skip_inner=False, run_dir=run_dir)
        yield from with_gaps_told(_expand_pattern(path, rules, findings), findings, are_all=False)
    else:
        raise _missing(path)


def _of_kind(
    path: str, suffixes: tuple[str, ...], rules: WalkRules, findings: Findings
) -> Iterator[storage.FileInfo]:
    """The files of a folder that are of the source's kind; the others are counted."""
    beside = OtherFiles()
    for file in walk_source(path, rules, findings=findings):
        if file.key.lower().endswith(suffixes):
            beside.take(file.key)
            yield file
        else:
            beside.pass_over(file.key)
    beside.note(path, findings)


def _expand_pattern(pattern: str, rules: WalkRules, findings: Findings) -> Iterator[storage.FileInfo]:
    """The files that a pattern names, keyed relative to the folder before its first brace or wildcard."""
    first = min(pattern.index(c) for c in "{*?[" if c in pattern)
    root = pattern[: pattern.rfind("/", 0, first) + 1]
    try:
        names = sorted({name.removeprefix(root) for name in braceexpand(pattern, escape=False)})
    except ValueError as error:
        raise ConfigError(
            "A pattern of files has unbalanced braces",
            got=storage.redact(pattern),
            expected="shard-{000..099}.tar",
        ) from error
    found: dict[str, storage.FileInfo] = {}
    for name in names:
        if any(c in name for c in "*?["):
            found.update((f.key, f) for f in _match_wildcards(root, name, rules=rules, findings=findings))
        elif storage.exists(root + name):
            found[name] = require_inside(replace(storage.stat(root + name), key=name), rules.links)
        else:
            raise _missing(root + name)
    if not found and not findings.problems:
        raise _missing(pattern)
    yield from _each_once(found, root, findings)


def _each_once(
    found: dict[str, storage.FileInfo], root: str, findings: Findings
) -> Iterator[storage.FileInfo]:
    """The files in key order; of those that links lead to again, the name without links, or the first."""
    in_order = sorted(found, key=lambda key: key.split("/"))
    if not storage.is_local(root):
        yield from (found[key] for key in in_order)
        return
    top = real_path(str(storage.local_path(root or ".")))
    real = {folder: real_path(storage.join(top, folder)) for folder in {_folder_of(key) for key in found}}
    has_links = [real[_folder_of(key)] != storage.join(top, _folder_of(key)).rstrip("/") for key in in_order]
    taken: dict[str, str] = {}
    for _, key in sorted(zip(has_links, in_order, strict=True), key=lambda pair: pair[0]):
        taken.setdefault(storage.join(real[_folder_of(key)], key.rpartition("/")[2]), key)
    kept = set(taken.values())
    yield from (found[key] for key in in_order if key in kept)
    if again := [key for key in in_order if key not in kept]:
        detail = f"{len(again)} files have a name without links, or an earlier one"
        findings.notes.append(Problem(as_text(found[again[0]].path), "link_repeated", detail))


def _folder_of(key: str) -> str:
    return key.rpartition("/")[0]


def _match_wildcards(
    root: str, name: str, *, rules: WalkRules, findings: Findings
) -> Iterator[storage.FileInfo]:
    """Files below `root` that match `name`, as `patterns.matches` says."""
    parts = name.split("/")
    num_literal = next(i for i, part in enumerate(parts) if any(c in part for c in "*?["))
    below = "".join(f"{part}/" for part in parts[:num_literal])
    wanted = split_pattern("/".join(parts[num_literal:]))
    top = root + below or "."
    if not storage.is_dir(top):
        raise _missing(top)
    rules = replace(rules, skip_hidden=not asks_for_hidden(wanted))
    hidden: list[str] = []
    for file in walk_source(top, rules, findings=findings):
        path = file.key.split("/")
        if matches(path, wanted):
            yield replace(file, key=below + file.key)
        elif not rules.skip_hidden and matches(path, wanted, take_hidden=True):
            hidden.append(file.path)
    if hidden:
        detail = f"{len(hidden)} files are passed over: a pattern takes what is hidden where it says so"
        findings.notes.append(Problem(as_text(hidden[0]), "hidden", detail))


def _missing(path: str) -> SourceError:
    return SourceError(
        f"A source does not exist: {storage.redact(path)}",
        got="nothing there",
        expected="a folder, a file, or a pattern such as shard-{000000..000099}.tar",
        remedy="Check the path in the config",
    )
