"""What decoders say of a picture while they work: kept off the console and given to the row it is about."""

import ctypes
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from PIL import Image

MAX_REMARKS = 4  # of one picture: a damaged fax says the same of each of its lines
MAX_CHARS = 160
ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")  # of an object in memory: another in every process
UNSPEAKABLE = re.compile(r"[^\x20-\x7e]+")  # files put their own bytes, terminal escapes too, into messages

_LibtiffHandler = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p)


def remark(who: str, words: str) -> str:
    """One line of what a decoder said: short, of printable ASCII, the same in every process."""
    said = UNSPEAKABLE.sub(" ", ADDRESS.sub("", words)).strip().rstrip(".")
    return f"{who}: {said}"[:MAX_CHARS]


@contextmanager
def overheard() -> Iterator[list[str]]:
    """Collect what Pillow and libtiff say in this thread, the first few different lines.

    libtiff writes errors to file descriptor 2, from C; Pillow uses Python's warnings. Both know only one
    handler for the whole process. Ours asks which thread it is called in, so that threads that decode side
    by side each hear of their own picture. What is said outside of a `with` goes where it always went.
    """
    _listen()
    before, _EAR.heard = _EAR.heard, []
    try:
        yield _EAR.heard
    finally:
        _EAR.heard = before


class _Ear(threading.local):
    heard: list[str] | None = None  # None: nobody in this thread decodes

    def hear(self, who: str, words: str) -> bool:
        """Whether somebody in this thread wanted to know."""
        if self.heard is None:
            return False
        said = remark(who, words)
        if len(self.heard) < MAX_REMARKS and said not in self.heard:
            self.heard.append(said)
        return True


_EAR = _Ear()
_LOCK = threading.Lock()
_KEPT_ALIVE: list[Any] = []  # libtiff calls these as long as the process lives


def _listen() -> None:
    """Put our handlers in place; again, where somebody's `warnings.catch_warnings` has taken ours away."""
    if _KEPT_ALIVE and getattr(warnings.showwarning, "is_ours", False):
        return
    with _LOCK:
        if not _KEPT_ALIVE:
            _KEPT_ALIVE.extend(_libtiff_handlers())
        if not getattr(warnings.showwarning, "is_ours", False):
            warnings.filterwarnings("always", module=r"PIL\.")
            warnings.showwarning = _warnings_handler(warnings.showwarning)


def _warnings_handler(other: Callable[..., None]) -> Callable[..., None]:
    def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        if not _EAR.hear("Pillow", str(message)):
            other(message, category, *place, **more)

    show.is_ours = True  # type: ignore[attr-defined]
    return show


def _libtiff_handlers() -> list[Any]:
    """Our handler in the place of libtiff's own, with what it needs.

    Pillow offers no way to set it. `dlsym` on its C module looks through the libraries that this was linked
    to as well: the wheel's own libtiff or the system's. Where libtiff was linked in without its names, its
    errors go on to the console.
    """
    library, libc = ctypes.CDLL(Image.core.__file__), ctypes.CDLL(None)
    kept: list[Any] = [library, libc]
    if not hasattr(library, "TIFFSetErrorHandler"):
        return kept
    library.TIFFSetErrorHandler.restype = ctypes.c_void_p
    original: list[Callable[..., None]] = []

    def hear(module: bytes | None, template: bytes, arguments: int) -> None:
        if _EAR.heard is None:
            for handler in original:
                handler(module, template, arguments)
            return
        line = ctypes.create_string_buffer(MAX_CHARS)
        # A va_list is passed as one pointer by every ABI that Pillow's wheels are built for.
        libc.vsnprintf(line, MAX_CHARS, template, ctypes.c_void_p(arguments))
        where = f"{module.decode(errors='replace')}: " if module else ""
        _EAR.hear("libtiff", where + line.value.decode(errors="replace"))

    ours = _LibtiffHandler(hear)
    if address := library.TIFFSetErrorHandler(ours):
        original.append(_LibtiffHandler(address))
    return [*kept, ours, *original]
