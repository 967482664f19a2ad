"""A tar's header: 512 bytes that name a member and its size. One reader and one writer for whoever has tars.

The headers are made by hand: `tarfile` builds an object, a dict and several strings for every member, which
takes longer than writing a photograph. The bytes are those of `tarfile` in USTAR format with time and owner
0.

Source: POSIX.1-2024, `pax`, "ustar Interchange Format"; GNU tar manual, "Basic Tar Format".
"""

from dataclasses import dataclass

from curation.errors import ConfigError

BLOCK_BYTES = 512
# A tar ends with two zero blocks and is padded to a record, as Python's tarfile and GNU tar do by default.
RECORD_BYTES = 20 * BLOCK_BYTES
MAX_NAME_BYTES = 100  # the name field of a USTAR header; wids reads no other
_MAX_MEMBER_BYTES = 8**11 - 1
_CHECKSUM = slice(148, 156)

_MODE_AND_OWNER = b"0000644\0" + b"0000000\0" * 2
_TIME = b"00000000000\0"
# Type, link, magic and version; names of the owner, device and prefix, all empty.
_AFTER_CHECKSUM = b"0" + bytes(100) + b"ustar\00000" + bytes(64 + 16 + 155 + 12)
_FIXED_SUM = sum(_MODE_AND_OWNER + _TIME + _AFTER_CHECKSUM) + 8 * ord(" ")  # the checksum counts as spaces


@dataclass(frozen=True, slots=True)
class TarHeader:
    """What a header says: a name (undecodable bytes as surrogates), the byte of its type, and a size."""

    name: str
    kind: bytes
    num_bytes: int


def parse_header(block: bytes) -> TarHeader:
    """What a block of a tar says, if it is a header.

    Raises:
        ValueError: saying why it is none.
    """
    if len(block) < BLOCK_BYTES or not has_checksum(block):
        raise ValueError("a header's checksum is wrong")
    num_bytes = _number(block[124:136])
    if num_bytes < 0:
        raise ValueError(f"a member's size is negative ({num_bytes})")
    name = text_of(block[:100])
    # GNU's own format ("ustar  ") keeps other things where POSIX keeps the prefix.
    if block[257:263] == b"ustar\0" and block[345]:
        name = f"{text_of(block[345:500])}/{name}"
    kind = block[156:157]
    if kind == b"\0" and name.endswith("/"):  # how tars before POSIX mark a folder
        kind = b"5"
    return TarHeader(name, kind, num_bytes)


def has_checksum(block: bytes) -> bool:
    """Whether the header's checksum holds: its bytes' sum, the checksum's own eight taken as spaces."""
    try:
        wanted = _number(block[_CHECKSUM])
    except ValueError:
        return False
    unsigned = sum(block) - sum(block[_CHECKSUM]) + 8 * ord(" ")
    if wanted == unsigned:
        return True
    # Some historic writers summed signed bytes; tarfile takes both, and so do we.
    return wanted == unsigned - 256 * sum(byte > 127 for byte in block[:148] + block[156:])


def text_of(field: bytes) -> str:
    """The text of a field, which a zero ends."""
    return field.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def _number(field: bytes) -> int:
    """A number field: octal digits, or base 256 where the first byte's high bit is set (GNU)."""
    if field[0] in (0o200, 0o377):
        value = int.from_bytes(field[1:], "big")
        return value if field[0] == 0o200 else value - 256 ** (len(field) - 1)
    digits = field.split(b"\0", 1)[0].strip()
    return int(digits, 8) if digits else 0


def tar_header(name: str, num_bytes: int) -> bytes:
    """The 512-byte USTAR header of a regular file: mode 0644, owner 0, time 0.

    Raises:
        ConfigError: for a name or a size that USTAR has no room for.
    """
    raw = name.encode()
    if len(raw) > MAX_NAME_BYTES or num_bytes > _MAX_MEMBER_BYTES:
        raise ConfigError(
            "A file does not fit a tar header",
            got=f"{name!r} of {num_bytes} bytes",
            expected=f"a name of at most {MAX_NAME_BYTES} bytes, and at most {_MAX_MEMBER_BYTES} bytes",
        )
    size = b"%011o\0" % num_bytes
    checksum = sum(raw) + sum(size) + _FIXED_SUM
    return b"%s%s%s%s%06o\0 %s" % (
        raw.ljust(100, b"\0"), _MODE_AND_OWNER, size, _TIME, checksum, _AFTER_CHECKSUM
    )  # fmt: skip


def padded(num_bytes: int) -> int:
    """So many bytes, or an offset, in whole blocks."""
    return -(-num_bytes // BLOCK_BYTES) * BLOCK_BYTES


def member_bytes(num_bytes: int) -> int:
    """Bytes that a member of `num_bytes` takes in a tar: its header, and its data in whole blocks."""
    return BLOCK_BYTES + padded(num_bytes)


def tar_bytes(members: int) -> int:
    """Bytes of a tar whose members take so many: with its end, padded to a record."""
    return -(-(members + 2 * BLOCK_BYTES) // RECORD_BYTES) * RECORD_BYTES
