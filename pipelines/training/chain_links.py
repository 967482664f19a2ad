"""What is done of a chain: each link, by hash, and the one that it began with.

    RUN_DIR/
      pretrain/  adapt/  distill/   run directories, as the commands alone would leave them
      export/NAME-FORMAT            models for other programs
      evaluation.json               k-NN of every model
      chain.json                    the links: what each came to, by SHA-256, and what it began with

A link that is done is not done again: what `chain.json` says of it is checked against its files first. One
that was stopped goes on at its last checkpoint.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from curation import storage
from curation.errors import IntegrityError
from pretrain.checkpoint_files import MARKER, fault_of, read_facts

RECORD = "chain.json"
EVALUATION = "evaluation.json"


@dataclass(frozen=True)
class DoneLink:
    """One link that is done.

    Attributes:
        name: of the link, and of the model where it has several: `distill/small`.
        path: what it came to, relative to the chain's folder.
        sha256: of that: of a checkpoint's proof, which has the SHA-256 of its files; of a file; of a folder's
            files and their names.
        parent: SHA-256 of what it began with; None for the first.
        settings: SHA-256 of its settings.
        step: of a checkpoint; None for what is none.
    """

    name: str
    path: str
    sha256: str
    parent: str | None
    settings: str
    step: int | None = None


class Chain:
    """What is done of a chain, kept in its `chain.json`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._links: dict[str, DoneLink] = {}
        if (root / RECORD).is_file():
            try:
                listed = json.loads((root / RECORD).read_text())["links"]
                self._links = {fields["name"]: DoneLink(**fields) for fields in listed}
            except (ValueError, LookupError, TypeError) as error:
                raise IntegrityError(
                    f"{root / RECORD} is damaged",
                    got=str(error),
                    remedy="Remove it: trainings that are done are found again by their checkpoints",
                ) from error

    @property
    def links(self) -> list[DoneLink]:
        """Those that are done, in order."""
        return list(self._links.values())

    def done(self, name: str, *, parent: str | None, settings: str) -> DoneLink | None:
        """A link that was done with this one before it and these settings, and lies there as it was written.

        Raises:
            IntegrityError: it is not what was written.
        """
        link = self._links.get(name)
        if link is None or (link.parent, link.settings) != (parent, settings):
            return None
        require_same(self.root, link)
        return link

    def add(self, name: str, path: Path, *, parent: str | None, settings: str) -> DoneLink:
        """Note a link, whole or not at all."""
        step = int(read_facts(path)["step"]) if (path / MARKER).is_file() else None
        link = DoneLink(name, path.relative_to(self.root).as_posix(), digest_of(path), parent, settings, step)
        self._links[name] = link
        listed = {"links": [asdict(one) for one in self._links.values()]}
        storage.publish_bytes(str(self.root / RECORD), json.dumps(listed, indent=1).encode(), replace=True)
        return link


def require_same(root: Path, link: DoneLink) -> None:
    """See that what a link came to is what was written, and names the link before it.

    Raises:
        IntegrityError: it is not, or does not.
    """
    path = root / link.path
    fault = None
    if not path.exists():
        fault = "it is gone"
    elif (path / MARKER).is_file() and (found := fault_of(path)) is not None:
        fault = found
    elif digest_of(path) != link.sha256:
        fault = "its SHA-256 is another one"
    elif link.step is not None and link.parent is not None:
        named = (read_facts(path)["parent"] or {}).get("sha256")
        fault = None if named == link.parent else f"it began with {named}"
    if fault is not None:
        raise IntegrityError(
            f"{path}, link {link.name} of the chain, is not what was written",
            got=fault,
            expected=f"SHA-256 {link.sha256}"
            + ("" if link.parent is None else f", begun with {link.parent}"),
            remedy=f"Restore it; or take its entry out of {root / RECORD} to have it made anew",
        )


def digest_of(path: Path) -> str:
    """The SHA-256 of what a link came to: see `DoneLink`."""
    if (path / MARKER).is_file():
        return hashlib.sha256((path / MARKER).read_bytes()).hexdigest()
    if path.is_file():
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    files = sorted(file for file in path.rglob("*") if file.is_file())
    lines = (f"{file.relative_to(path).as_posix()} {digest_of(file)}\n" for file in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()
