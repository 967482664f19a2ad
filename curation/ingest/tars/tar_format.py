"""The members of a tar and where their bytes lie, read from its headers alone.

Nothing is extracted and no member is read: a header is 512 bytes, and the next one's place follows from the
member's size. A hard link is the member that it names once more. Unlike `tarfile`, whatever stops the walk is
reported with its offset, what was found before it is kept, and an archive after the end-of-archive mark
(`cat a.tar b.tar`) is read on. Zeros beyond that mark and its padding are members that never came.

Source: POSIX.1-2024, `pax`, "ustar Interchange Format" and "pax Header Block"; GNU tar manual, "Basic Tar
Format".
"""

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from curation.ingest.problems import Problem, Unread
from curation.ingest.sidecars import sample_key
from curation.ingest.tars.zero_runs import STRIDE_BYTES, count_zeros, find_magic, is_padding
from curation.tar_headers import BLOCK_BYTES, TarHeader, has_checksum, padded, parse_header, text_of

# Enough for any name; a forged one must not make us allocate what its header claims.
MAX_EXTENSION_BYTES = 1 << 20
# A longer name is held by its digest: 10 kB of zstd are a thousand names of a megabyte.
MAX_NAME_CHARS = 1024
_MAX_REST_CHARS = 64  # of what a digest is given to tell the files of a sample apart
# Of a pax header: others, by the hundred thousand in a global one, would be gone through for every member.
_SPARSE = b"GNU.sparse."  # stands for all keywords that begin so
_KEPT = frozenset((b"path", b"size", b"linkpath", _SPARSE))
_MAX_DEFAULT_CHARS = 256
_ZERO = bytes(BLOCK_BYTES)
_FIRST_STRIDE_BYTES = 32 << 10  # of zeros: the usual padding
_MAX_LOOKED_AT = 256 << 20  # bytes after zeros, for a header: as many as a member may have
_REGULAR = frozenset((b"0", b"\0", b"7"))
_EXTENSIONS = frozenset((b"x", b"X", b"g", b"L", b"K"))
_WITHOUT_DATA = frozenset((b"1", b"2", b"3", b"4", b"5", b"6"))  # whatever size they claim, as tarfile has it
_KINDS = {
    b"2": "symbolic link",
    b"3": "device",
    b"4": "device",
    b"6": "pipe",
    b"S": "sparse file",
}
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}

ReadAt = Callable[[int, int], bytes]  # (offset, number of bytes) to exactly these bytes, or an OSError
SkipHole = Callable[[int], int]  # offset to the next one where the file system keeps bytes


@dataclass(frozen=True, slots=True)
class Member:
    """A regular member: its name (undecodable bytes as surrogates), and its range, which may pass the end."""

    name: str
    offset: int
    num_bytes: int


class TarWalk:
    """One pass over a tar's headers: `members`, `problems` (something was not read) and `notes`."""

    def __init__(self, path: str, num_bytes: int) -> None:
        self.members: list[Member] = []
        self.problems: list[Problem] = []
        self.notes: list[Problem] = []
        self.path, self._size = path, num_bytes
        self._pax_defaults: dict[str, str] = {}
        self._pax: dict[str, str] = {}  # of the next member
        self._long_name: str | None = None  # likewise, GNU's way
        self._long_target: str | None = None  # likewise, of a link
        self._named: dict[str, Member] | None = None  # the members so far, once a hard link has asked for one
        self._archive = 0  # where the archive begins that the walk is in
        self._zeros: tuple[int, int] | None = None  # just passed: an end mark with its padding, as it seems
        self._others: Counter[str] = Counter()
        self._num_long = 0

    def run(self, read: ReadAt, skip_hole: SkipHole | None = None) -> "TarWalk":
        """Walk to the end, or to what stops the walk.

        Args:
            skip_hole: leads past bytes that are zero since nobody wrote them; None: all are read.

        Raises:
            OSError: when the file cannot be read; what was found before stays found.
        """
        self._read, self._skip_hole = read, skip_hole
        offset: int | None = 0
        while offset is not None and offset < self._size:
            offset = self._step(offset)
        if self._others:
            kinds = ", ".join(f"{n} {kind}{'s' * (n > 1)}" for kind, n in sorted(self._others.items()))
            self.notes.append(Problem(self.path, "not_regular", f"left out: {kinds}"))
        if self._num_long:
            detail = f"{self._num_long} names have more than {MAX_NAME_CHARS} characters: held by a digest"
            self.notes.append(Problem(self.path, "long_key", detail))
        if self._size == 0:
            self._fail("empty_file", "the file has zero bytes", 0)
        elif offset is not None and self._zeros is not None:
            self._judge_zeros("up to the end of the file")
        elif offset is not None:
            self._fail("no_end", "the end-of-archive mark is missing; members may be missing too", self._size)
        if self._size and not self.members and not self.problems:
            self.notes.append(Problem(self.path, "empty_archive", "no regular members"))
        return self

    def _fail(self, what: Unread, detail: str, offset: int) -> None:
        self.problems.append(Problem(self.path, what, detail, offset))

    def _step(self, offset: int) -> int | None:
        """Take the block at `offset`; return where the next header lies, or None where nobody knows."""
        block = self._read(offset, min(BLOCK_BYTES, self._size - offset))
        if block == _ZERO[: len(block)]:
            end = self._skip_zeros(offset)
            self._zeros = (offset, end)
            return end
        try:
            header = parse_header(block)
        except ValueError as error:
            self._stop_at(offset, block, str(error))
            return None
        if self._zeros is not None:
            if self._judge_zeros("before members that follow"):
                detail = "an archive follows the end-of-archive mark; read on"
                self.notes.append(Problem(self.path, "concatenated", detail, offset))
                self._archive = offset
            self._zeros = None
        if header.kind in _EXTENSIONS:
            return self._take_extension(header, offset)
        return self._take_member(header, offset, block)

    def _skip_zeros(self, offset: int) -> int:
        """Where the zeros from `offset` on end, as whole blocks. Mostly they are few, and then a hole's."""
        stride = _FIRST_STRIDE_BYTES
        while offset < self._size:
            chunk = self._read(offset, min(stride, self._size - offset))
            if (num_zeros := count_zeros(chunk)) < len(chunk):
                return offset + num_zeros // BLOCK_BYTES * BLOCK_BYTES
            offset, stride = offset + len(chunk), STRIDE_BYTES
            if self._skip_hole is not None and offset < self._size:
                offset = self._skip_hole(offset) // BLOCK_BYTES * BLOCK_BYTES
        return self._size

    def _judge_zeros(self, where: str) -> bool:
        """Whether the zeros just passed are an end mark and padding; other ones are what was not read."""
        assert self._zeros is not None
        start, end = self._zeros
        if is_padding(start, end, archive=self._archive):
            return True
        detail = f"{end - start} bytes of zeros {where}, more than any padding: what lay there is missing"
        self._fail("zeros", detail, start)
        return False

    def _finds_header(self, offset: int) -> bool:
        """Whether a header lies behind `offset`, within what a member may have."""
        stop = min(self._size, offset + _MAX_LOOKED_AT)
        for start in range(offset, stop, STRIDE_BYTES):
            data = self._read(start, min(STRIDE_BYTES, stop - start))
            if any(
                has_checksum(data[at : at + BLOCK_BYTES])
                for at in find_magic(data)
                if at + BLOCK_BYTES <= len(data)
            ):
                return True
        return False

    def _stop_at(self, offset: int, block: bytes, why: str) -> None:
        left = self._size - offset
        packed = next((name for magic, name in _COMPRESSED.items() if block.startswith(magic)), None)
        if self._zeros is not None:
            self._stop_behind_zeros(offset, left)
        elif offset == 0 and packed:
            detail = f"{packed}, and named as a plain tar: name it .tar.gz or the like, and it is unpacked"
            self._fail("compressed", detail, 0)
        elif offset == 0 and (len(block) < BLOCK_BYTES or not has_checksum(block)):
            self._fail("not_a_tar", f"starts with {block[:16]!r}", 0)
        elif len(block) < BLOCK_BYTES:
            self._fail("truncated", f"the file ends {len(block)} bytes into a header", offset)
        else:
            self._fail("bad_header", f"{why}; the {left} bytes from here on were not read", offset)

    def _stop_behind_zeros(self, offset: int, left: int) -> None:
        if not self._judge_zeros(f"before {left} bytes that begin within a member"):
            return
        if self._finds_header(offset):  # of the same archive, most likely: a page of it was not written
            start, end = self._zeros or (offset, offset)
            detail = (
                f"{end - start} bytes of zeros, behind which the archive goes on: from there on, {left} bytes"
            )
            self._fail("zeros", f"{detail} were not read", start)
            return
        detail = f"{left} bytes after the end-of-archive mark are no archive"
        self.notes.append(Problem(self.path, "trailing_data", detail, offset))

    def _take_extension(self, header: TarHeader, offset: int) -> int | None:
        """Read a pax header or a long name, which describes the next member."""
        start, end = offset + BLOCK_BYTES, offset + BLOCK_BYTES + header.num_bytes
        if header.num_bytes > MAX_EXTENSION_BYTES:
            self._fail("bad_header", f"an extended header claims {header.num_bytes} bytes", offset)
            return None
        if end > self._size:
            self._fail("truncated", "the file ends inside an extended header", offset)
            return None
        data = self._read(start, header.num_bytes)
        try:
            if header.kind == b"L":
                self._long_name = text_of(data)
            elif header.kind == b"g":
                # A name, or a link's target, of all members is a mistake, and a long one is held for each.
                found = {k: v for k, v in _parse_pax(data).items() if len(v) <= _MAX_DEFAULT_CHARS}
                self._pax_defaults.update(found)
            elif header.kind == b"K":
                self._long_target = text_of(data)
            else:
                self._pax = _parse_pax(data)
        except ValueError as error:
            self._fail(
                "bad_header", f"an extended header is damaged ({error}); the rest was not read", offset
            )
            return None
        return padded(end)

    def _take_member(self, header: TarHeader, offset: int, block: bytes) -> int | None:
        pax, long_name, long_target = self._pax_defaults | self._pax, self._long_name, self._long_target
        self._pax, self._long_name, self._long_target = {}, None, None
        name = pax.get("path", long_name if long_name is not None else header.name)
        claimed = pax.get("size", str(header.num_bytes))
        if not (claimed.isascii() and claimed.isdecimal() and len(claimed) < 20):
            self._fail("bad_header", f"a member's size is {claimed[:40]!r}; the rest was not read", offset)
            return None
        num_bytes, start = int(claimed), offset + BLOCK_BYTES
        if header.kind == b"S" and block[482]:  # old GNU sparse: the map goes on in blocks of their own
            while start + BLOCK_BYTES <= self._size and self._read(start, BLOCK_BYTES)[504]:
                start += BLOCK_BYTES
            start += BLOCK_BYTES
        if header.kind in _REGULAR and not _is_sparse(pax):
            self._add(Member(name, start, num_bytes))
        elif header.kind == b"1":
            self._add_link(name, pax.get("linkpath", long_target or text_of(block[157:257])))
        elif header.kind != b"5":  # a folder holds nothing of its own
            self._others["sparse file" if _is_sparse(pax) else _KINDS.get(header.kind, "unknown member")] += 1
        end = start if header.kind in _WITHOUT_DATA else start + num_bytes
        if end > self._size:
            detail = f"the file ends at byte {self._size}, inside {name[:200]!a}, which reaches to {end}"
            self._fail("truncated", detail, offset)
            return None
        return padded(end)

    def _add(self, member: Member) -> None:
        if len(member.name) > MAX_NAME_CHARS:
            self._num_long += 1
            member = replace(member, name=_short_name(member.name))
        self.members.append(member)
        if self._named is not None:
            self._named[_plain_name(member.name)] = member

    def _add_link(self, name: str, target: str) -> None:
        """A hard link is another name of a member before it; one that names none is a stray."""
        if self._named is None:
            self._named = {_plain_name(member.name): member for member in self.members}
        named = self._named.get(_plain_name(_short_name(target)))
        if named is None:
            self._others["stray hard link"] += 1
        else:
            self._add(replace(named, name=name))


def _short_name(name: str) -> str:
    """A name that can be held: the files of a sample with a long one still have a key in common."""
    if len(name) <= MAX_NAME_CHARS:
        return name
    key = sample_key(name)
    digest = hashlib.blake2b(key.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
    rest = name[len(key) :]
    return digest + (rest if len(rest) <= _MAX_REST_CHARS else "")


def _plain_name(name: str) -> str:
    return name.lstrip("/").removeprefix("./")


def _is_sparse(pax: dict[str, str]) -> bool:
    return _SPARSE.decode() in pax


def _parse_pax(data: bytes) -> dict[str, str]:
    """The records of a pax header that matter: `LENGTH KEYWORD=VALUE` and a newline, LENGTH of it all."""
    records, start = {}, 0
    while start < len(data) and data[start]:
        space = data.index(b" ", start, start + 20)
        end = start + int(data[start:space])
        if not space < end <= len(data) or data[end - 1] != 0x0A:
            raise ValueError("a record's length is wrong")
        keyword, equals, value = data[space + 1 : end - 1].partition(b"=")
        if not equals:
            raise ValueError("a record without '='")
        if keyword.startswith(_SPARSE):
            keyword, value = _SPARSE, b""
        if keyword in _KEPT:
            records[keyword.decode()] = value.decode("utf-8", "surrogateescape")
        start = end
    return records
