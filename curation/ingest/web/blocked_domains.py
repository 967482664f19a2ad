"""Domains that are not asked for images: lists in files, and the question whether a host is on one."""

import hashlib
from collections.abc import Iterable, Sequence

from curation import storage
from curation.errors import ConfigError
from curation.ingest.tables.text_lines import decode_text

_ADDRESSES_OF_HOSTS_FILES = ("0.0.0.0", "127.0.0.1", "::", "::1")


def read_blocked(paths: Sequence[str]) -> tuple[frozenset[str], str]:
    """The domains of all lists.

    A list has a domain a line, with or without a leading `*.` or dot; `#` starts a comment. Lines of a hosts
    file (`0.0.0.0 evil.example`) are read too. A domain stands for itself and for everything below it.

    Returns:
        The domains in lower case, and a hash of them in hex.

    Raises:
        ConfigError: naming the file, when it cannot be read.
    """
    domains: set[str] = set()
    for path in paths:
        try:
            domains.update(_domains(decode_text(storage.read_bytes(path)).splitlines()))
        except (OSError, UnicodeError) as error:
            raise ConfigError(
                f"A list of blocked domains cannot be read: {storage.redact(path)}",
                got=error,
                expected="a text file with a domain a line, in UTF-8, UTF-16 or UTF-32",
            ) from error
    digest = hashlib.sha256("\n".join(sorted(domains)).encode()).hexdigest()
    return frozenset(domains), digest


def _domains(lines: Iterable[str]) -> Iterable[str]:
    for line in lines:
        words = line.partition("#")[0].split()
        if len(words) > 1 and words[0] in _ADDRESSES_OF_HOSTS_FILES:
            words = words[1:]
        for word in words[:1]:
            name = word.lower().removeprefix("*").strip(".")
            if name:
                yield name if name.isascii() else name.encode("idna").decode("ascii")


def is_blocked(host: str, blocked: frozenset[str]) -> bool:
    """Whether `host`, or a domain that it lies below, is on the list; whole labels are compared."""
    name = host.rstrip(".").lower() if blocked else ""
    while name:
        if name in blocked:
            return True
        name = name.partition(".")[2]
    return False
