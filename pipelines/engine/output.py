"""What the commands write: lines for people, JSON for programs, and what went wrong.

Keys and messages come from strangers, and a terminal obeys what it is sent: here every line is made visible,
whoever wrote it.
"""

import json
import re
import sys
from collections.abc import Iterable

from curation.printed import redact, visible

_BEYOND_ASCII = re.compile(r"[^\x00-\x7e]")


def print_lines(lines: Iterable[str]) -> None:
    """Lines for people, on stdout; each stays one line."""
    print("\n".join(visible(line) for line in lines), flush=True)


def print_json(data: object) -> None:
    """One line of JSON, on stdout."""
    # Such characters stand in its strings alone, where an escape says the same; json leaves them as they are.
    text = json.dumps(data, ensure_ascii=False)
    print(_BEYOND_ASCII.sub(_escaped, text), flush=True)


def _escaped(found: re.Match[str]) -> str:
    return found[0] if found[0].isprintable() else json.dumps(found[0])[1:-1]


def print_error(text: str, *, of: str = "lvd") -> None:
    """What went wrong, on stderr; further lines of it are indented, so that none is taken for our own."""
    shown = visible(redact(text), keep="\n\t").replace("\n", "\n  ")
    print(f"{of}: {shown}", file=sys.stderr)
