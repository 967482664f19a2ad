"""A source's folder is walked: links are followed, and what is passed over is told.

A file has the key of its own path, wherever links lead: a linked folder is left out where it lies in the
source's folder anyway, and of several links to one folder the first in the order of the listing counts. Links
to files are files. A ring ends where it leads into a folder that the walk is in, told by device and inode.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path

from curation import local_reads, storage
from curation.disk_errors import lack
from curation.errors import ConfigError
from curation.hidden import is_hidden
from curation.ingest.links import LinkConfig, lies_in, real_path, require_inside
from curation.ingest.problems import Findings, Oddity, Problem, Unread
from curation.ingest.rows import as_text

_AT_ONCE = 256  # entries that a disk is asked for in one call with a deadline
_NUM_NAMED = 3
_NOTES: tuple[Oddity, ...] = ("not_regular", "link_ring", "link_repeated", "link_outside", "own_output")

Identity = tuple[int, int]  # device, inode


@dataclass(frozen=True, slots=True)
class _Entry:
    """What lies in a folder, links followed; without `found`, `error` says why."""

    name: str
    found: os.stat_result | None = None
    error: OSError | None = None
    target: str | None = None  # of a link: where it leads, without further links


@dataclass(slots=True)
class _Folder:
    """A folder that the walk is in."""

    path: Path
    prefix: str  # of its keys
    identity: Identity
    home: str  # where its files lie: the source's folder, or the linked one, without links
    is_linked: bool
    entries: Iterator[_Entry]
    told: dict[Unread | Oddity, list[tuple[str, str]]] = field(default_factory=dict)

    def tell(self, what: Unread | Oddity, name: str, detail: str) -> None:
        told = self.told.setdefault(what, [])
        told.append((name, "" if told else detail))  # the first speaks for all, which may be a million


@dataclass(frozen=True, slots=True)
class WalkRules:
    """How a source's folder is walked.

    Attributes:
        links: where links may lead.
        deep: whether folders are walked too.
        is_sidecar: whether a file of this name and size accompanies another; None: none does.
        skip_inner: whether links to folders that lie in the source's folder anyway are left out.
        skip_hidden: whether what is hidden is left out.
        run_dir: the run's own folder, a local path, which is left out; None: no run asks.
    """

    links: LinkConfig
    deep: bool = True
    is_sidecar: Callable[[str, int], bool] | None = None
    skip_inner: bool = True
    skip_hidden: bool = True
    run_dir: str | None = None


def walk_source(root: str, rules: WalkRules, *, findings: Findings) -> Iterator[storage.FileInfo]:
    """Stream the files of a source's folder in key order: depth first, the names of a folder sorted.

    Raises:
        OSError: when the folder itself cannot be listed.
        ConfigError: when the folder lies outside of where links may lead, or is the run's own.
    """
    hidden: list[str] = []
    if storage.is_local(root):
        yield from _Walk(root.rstrip("/") or "/", rules, findings, hidden).files()
    else:
        for file in storage.list_files(root, deep=rules.deep):
            if rules.skip_hidden and is_hidden(file.key):
                hidden.append(file.key)
            else:
                yield file
    if hidden:
        detail = f"passed over: {_named(hidden)}"
        findings.notes.append(Problem(as_text(storage.join(root, hidden[0])), "hidden", detail))


@dataclass
class _Walk:
    root: str
    rules: WalkRules
    findings: Findings
    hidden: list[str]  # keys
    limit: str | None = None
    own: str | None = None  # the run's own folder, without links, where the walk may come to it
    own_identity: Identity | None = None
    real_root: str = ""
    above: frozenset[Identity] = frozenset()  # the root, and the folders that it lies in
    walked: set[Identity] = field(default_factory=set)  # folders that links have led to, and those below
    folders: list[_Folder] = field(default_factory=list)  # that the walk is in: paths may be 2,000 deep

    def files(self) -> Iterator[storage.FileInfo]:
        path = storage.local_path(self.root)
        self._place(path)
        self._enter(path, "", _identity(path), home=self.real_root, is_linked=False)
        while self.folders:
            folder = self.folders[-1]
            entry = next(folder.entries, None)
            if entry is None:
                self._leave()
                continue
            # What cannot be looked at may be a folder.
            is_folder = entry.found is None or stat.S_ISDIR(entry.found.st_mode)
            if self.rules.skip_hidden and is_hidden(f"{entry.name}/" if is_folder else entry.name):
                self.hidden.append(folder.prefix + entry.name)
            elif entry.found is None:
                _tell_error(folder, entry)
            elif is_folder:
                self._enter_below(folder, entry, entry.found)
            elif file := self._file(folder, entry, entry.found):
                yield file

    def _place(self, path: Path) -> None:
        self.real_root, self.limit = real_path(str(path)), self.rules.links.limit()
        self.above = frozenset(_identity(p) for p in (Path(self.real_root), *Path(self.real_root).parents))
        require_inside(storage.FileInfo(self.root, "", 0, ""), self.rules.links)
        if self.rules.run_dir is not None:
            self._set_apart(Path(real_path(str(storage.local_path(self.rules.run_dir)))))

    def _set_apart(self, own: Path) -> None:
        """Leave the run's own folder out, wherever the walk meets it."""
        if not local_reads.in_time(own, own.is_dir):
            return
        identity = _identity(own)
        if identity == _identity(Path(self.real_root)):
            raise _is_run_dir(self.root)
        if identity not in self.above:  # below it, a source names a folder that no run made
            self.own, self.own_identity = str(own), identity

    def _enter(self, path: Path, prefix: str, identity: Identity, *, home: str, is_linked: bool) -> None:
        names, error = _names(path)
        if error is not None and not (self.folders or names or isinstance(error, TimeoutError)):
            raise error
        folder = _Folder(path, prefix, identity, home, is_linked, _look_at(path, names))
        if error is not None:
            folder.tell("unreadable", "", f"the folder cannot be listed: {error.strerror or error}")
        self.folders.append(folder)

    def _leave(self) -> None:
        folder = self.folders.pop()
        for what, entries in folder.told.items():
            name, detail = entries[0]
            if len(entries) > 1:
                detail += f"; and so for {_named([other for other, _ in entries[1:]])}"
            path = storage.join(self.root, folder.prefix + name) if folder.prefix + name else self.root
            told = self.findings.notes if what in _NOTES else self.findings.problems
            told.append(Problem(as_text(path.rstrip("/")), what, as_text(detail)))

    def _enter_below(self, folder: _Folder, entry: _Entry, found: os.stat_result) -> None:
        if not self.rules.deep:
            return
        identity = (found.st_dev, found.st_ino)
        if identity == self.own_identity or self._is_own(entry):
            folder.tell("own_output", entry.name, "it is, or leads into, the folder that this run writes")
            return
        is_linked, home = folder.is_linked or entry.target is not None, folder.home
        if identity in self.above or any(identity == one.identity for one in self.folders):
            folder.tell("link_ring", entry.name, "leads to a folder that it lies in; it is not followed")
            return
        if entry.target is not None:
            if not self._may_lead_to(entry.target, folder, entry.name):
                return
            if self.rules.skip_inner and self._is_listed(entry.target):
                folder.tell("link_repeated", entry.name, f"{entry.target} is listed where it lies")
                return
            home = entry.target
        if is_linked:
            if identity in self.walked:
                folder.tell("link_repeated", entry.name, "another link has led to this folder before")
                return
            self.walked.add(identity)
        path = folder.path / entry.name
        self._enter(path, f"{folder.prefix}{entry.name}/", identity, home=home, is_linked=is_linked)

    def _is_own(self, entry: _Entry) -> bool:
        """Whether a link leads to what this run has written."""
        return self.own is not None and entry.target is not None and lies_in(entry.target, self.own)

    def _is_listed(self, target: str) -> bool:
        """Whether the walk comes to a folder without the help of links."""
        return lies_in(target, self.real_root) and not is_hidden(
            target[len(self.real_root) :].lstrip("/") + "/"
        )

    def _may_lead_to(self, target: str, folder: _Folder, name: str) -> bool:
        if self.limit is None or lies_in(target, self.limit):
            return True
        folder.tell("link_outside", name, f"leads to {target}, out of links.within; it is not followed")
        return False

    def _file(self, folder: _Folder, entry: _Entry, found: os.stat_result) -> storage.FileInfo | None:
        if not stat.S_ISREG(found.st_mode):
            folder.tell("not_regular", entry.name, f"{_kind_of(found.st_mode)}; it is not read")
            return None
        if entry.target is not None and not self._may_lead_to(entry.target, folder, entry.name):
            return None
        if self._is_own(entry):
            folder.tell("own_output", entry.name, "it leads into the folder that this run writes")
            return None
        if not self._may_be_file(folder, entry, found):
            return None
        key = folder.prefix + entry.name
        version = f"{found.st_mtime_ns}-{found.st_size}"
        return storage.FileInfo(storage.join(self.root, key), key, found.st_size, version)

    def _may_be_file(self, folder: _Folder, entry: _Entry, found: os.stat_result) -> bool:
        """Whether a file is one of the source's files: no sidecar that a link brings from elsewhere."""
        rules = self.rules
        if rules.links.sidecars or lies_in(entry.target or folder.home, self.real_root):
            return True
        if rules.is_sidecar is None or not rules.is_sidecar(entry.name, found.st_size):
            return True
        what = f"link to {entry.target}" if entry.target is not None else f"file in the linked {folder.home}"
        detail = f"a sidecar that is a {what}, out of the source's folder, is left out (links.sidecars)"
        folder.tell("link_outside", entry.name, detail)
        return False


def _names(path: Path) -> tuple[list[str], OSError | None]:
    """The names in a folder, sorted, and what ended the listing early."""
    names: list[str] = []
    error: OSError | None = None
    try:
        with local_reads.in_time(path, lambda: os.scandir(path)) as entries:
            while some := local_reads.in_time(path, lambda: [e.name for e in islice(entries, _AT_ONCE)]):
                names += some
    except OSError as failed:
        error = failed
    return sorted(names, key=os.fsencode), error


def _look_at(folder: Path, names: list[str]) -> Iterator[_Entry]:
    for start in range(0, len(names), _AT_ONCE):
        some = names[start : start + _AT_ONCE]
        try:
            yield from local_reads.in_time(folder, partial(_look_at_all, str(folder), some))
        except TimeoutError:  # one of them leads to a disk that does not answer
            yield from (_look_in_time(folder, name) for name in some)


def _look_in_time(folder: Path, name: str) -> _Entry:
    try:
        return local_reads.in_time(folder / name, partial(_look, str(folder), name))
    except TimeoutError as error:
        return _Entry(name, error=error)


def _look_at_all(folder: str, names: list[str]) -> list[_Entry]:
    return [_look(folder, name) for name in names]


def _look(folder: str, name: str) -> _Entry:
    path = f"{folder}/{name}"
    target: str | None = None
    try:
        found = os.lstat(path)
        if stat.S_ISLNK(found.st_mode):
            target = os.path.realpath(path)
            found = os.stat(path)  # noqa: PTH116 — paths by the million
    except OSError as error:
        return _Entry(name, error=error, target=target)
    return _Entry(name, found, target=target)


def _tell_error(folder: _Folder, entry: _Entry) -> None:
    error = entry.error
    assert error is not None
    if (lacking := lack(error, folder.path / entry.name)) is not None:
        raise lacking from error
    nowhere = isinstance(error, FileNotFoundError | NotADirectoryError)
    if entry.target is not None and error.errno == errno.ELOOP:
        folder.tell("dangling_link", entry.name, "a link that leads back to itself")
    elif entry.target is not None and nowhere:
        folder.tell("dangling_link", entry.name, f"a link to {entry.target}, where nothing lies")
    elif nowhere:
        folder.tell("vanished", entry.name, "it went while the folder was listed")
    else:
        folder.tell("unreadable", entry.name, error.strerror or str(error))


def _identity(path: Path) -> Identity:
    found = local_reads.in_time(path, path.stat)
    return (found.st_dev, found.st_ino)


def _is_run_dir(root: str) -> ConfigError:
    return ConfigError(
        "A source's folder is the run_dir of its own run",
        got=storage.redact(root),
        expected="a folder of images or their containers, where this run writes nothing",
        remedy="Set another: --set run_dir=DIR; it may lie in the source's folder",
    )


def _kind_of(mode: int) -> str:
    if stat.S_ISFIFO(mode):
        return "a pipe"
    return "a socket" if stat.S_ISSOCK(mode) else "a device"


def _named(names: list[str]) -> str:
    """Some names out of a list, and how many there are."""
    first = as_text(", ".join(names[:_NUM_NAMED]))
    return first if len(names) <= _NUM_NAMED else f"{first} and {len(names) - _NUM_NAMED} more"
