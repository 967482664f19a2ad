"""remarks: what decoders say reaches the row of its picture, whatever the thread, and never the console."""

import base64
import io
import threading
import warnings

import numpy as np
import pytest
from PIL import Image

from curation.pictures.decode import DecodeConfig, Decoded, decode
from curation.pictures.remarks import MAX_CHARS, MAX_REMARKS, overheard, remark

# 48 x 32 px with arithmetic coding, which Pillow reads and does not write; by cjpeg -arithmetic.
ARITHMETIC_JPEG = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAA0JCgsKCA0LCgsODg0PEyAVExISEyccHhcgLikxMC4pLSwzOko+MzZGNywtQFdB"
    "RkxOUlNSMj5aYVpQYEpRUk//2wBDAQ4ODhMREyYVFSZPNS01T09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09P"
    "T09PT09PT09PT09PT0//yQARCAAgADADASIAAhEBAxEB/8wACgAQEAUBEBEF/9oADAMBAAIRAxEAPwD/AGYI8h52E8fqQKty"
    "fTq9Mz9abIxrataUdsMDZXlQvX50AUOfwOyw2V2rdaOi2vHSPlCgINo4Omz8+boqyq3lDkxfn29Uu1R8iKfQW1It+WZVNTNo"
    "Qjf5sNEKMT0MV+FhQda/UL5xyCowRtRjoSN7cYt6vQa2kGiwwMSla6LV7Ux3nJtivsDWmJIeMLyKwqgHbEnuCMaIM+JzRT5X"
    "YvgnAlq90xEP7BN8nD5g6yGsUvrrt4wVRcbnGWVaNVB4rSijgCtxtITiz6wN8hOTquFStnzh3iY/ocxsy93gN1sOYXeg0kBs"
    "SgbMuv3l/wAi7dTjFqNrCFtHKPtyEyTOIlQlRPbp23kvH8BtsyD3YeqrGH+uyxNUN5Q5DYVFbN7bIAGZX3K55GoNnSMTYaeZ"
    "etLYvP3wSOkY4XQcSAGSVzV29Hv/AAZp4iM+OkdjWwNdWuntY2mEBKvJGFozFFo/eRgTUtWvFycindax7e6Wp8xp7u1B8rzX"
    "hBzB5KWeM7UYW/e+AzUYqkUIWXDBQaXt6a5/eelSX4Sh2hf4qvzxiP0XWO3HVSYKr/oVfLpowLieqzMICeFjXadbmy2xRDb/"
    "2Q=="
)


def _decode(data: bytes) -> Decoded:
    return decode(data, need_side_px=10_000, config=DecodeConfig())


def _encode(file_format: str, *, mode: str = "RGB", seed: int = 0, **options: object) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    image = Image.fromarray(pixels).resize((160, 120), Image.Resampling.BICUBIC).convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def _broken_lzw() -> bytes:
    data = bytearray(_encode("TIFF", compression="tiff_lzw"))
    data[2000:2100] = bytes(100)
    return bytes(data)


def _damaged(data: bytes, *, seed: int, first: int = 0) -> bytes:
    rng = np.random.default_rng(seed)
    damaged = np.frombuffer(data, np.uint8).copy()
    damaged[rng.integers(first, len(data), 6)] = rng.integers(0, 256, 6)
    return damaged.tobytes()


def test_a_corrupt_tiff_carries_the_words_of_libtiff(capfd: pytest.CaptureFixture[str]) -> None:
    data = _broken_lzw()
    decoded = _decode(data)
    assert decoded.reason == "corrupt"
    assert decoded.warnings == (
        "Pillow: decoder error -2",
        "libtiff: LZWDecode: Not enough data at scanline 0 (short 28 bytes)",
    )
    assert capfd.readouterr() == ("", "")


def test_a_tiff_that_is_kept_carries_them_too(capfd: pytest.CaptureFixture[str]) -> None:
    """A damaged fax has a line for each bad row: the first few are enough."""
    decoded = _decode(_damaged(_encode("TIFF", mode="1", compression="group4"), seed=0, first=8))
    assert decoded.pixels is not None
    assert 0 < len(decoded.warnings) <= MAX_REMARKS
    assert all(said.startswith("libtiff: Fax4Decode") for said in decoded.warnings)
    assert capfd.readouterr() == ("", "")


def test_warnings_of_pillow_are_of_the_row(capfd: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():  # as in production, where they would be printed
        warnings.simplefilter("default")
        decoded = _decode(_encode("TIFF")[:-4])
    assert any(said.startswith("Pillow: ") for said in decoded.warnings)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "MPO"])
def test_no_damage_makes_a_decoder_write_to_the_console(
    file_format: str, capfd: pytest.CaptureFixture[str]
) -> None:
    files = [_encode(file_format)]
    if file_format == "TIFF":
        files = [_encode("TIFF", compression=c) for c in ("tiff_lzw", "tiff_deflate", "jpeg", "lzma", "zstd")]
        files += [_encode("TIFF", mode="1", compression=c) for c in ("group3", "group4", "tiff_ccitt")]
    num_said = 0
    for data in files:
        for seed in range(40):
            decoded = _decode(_damaged(data, seed=seed, first=seed % 2 * 8))
            num_said += len(decoded.warnings) > 0
            assert decoded.reason not in ("corrupt", "truncated") or decoded.warnings
            assert all(said.isascii() and said.isprintable() for said in decoded.warnings)
    assert num_said > 10 or file_format == "BMP"
    assert capfd.readouterr() == ("", "")


def test_each_thread_hears_of_its_own_picture(capfd: pytest.CaptureFixture[str]) -> None:
    kinds = [("tiff_lzw", "RGB"), ("tiff_deflate", "RGB"), ("group3", "1"), ("lzma", "RGB")]
    files = [
        _damaged(_encode("TIFF", mode=mode, compression=compression), seed=seed, first=200)
        for compression, mode in kinds
        for seed in range(8)
    ]
    alone = [_decode(data).warnings for data in files]
    assert sum(map(bool, alone)) > 16
    together: list[list[tuple[str, ...]]] = [[] for _ in range(4)]

    def work(results: list[tuple[str, ...]]) -> None:
        results.extend(_decode(data).warnings for data in files)

    threads = [threading.Thread(target=work, args=(results,)) for results in together]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == [alone] * 4
    assert capfd.readouterr() == ("", "")


def test_what_is_said_elsewhere_goes_where_it_always_went(capfd: pytest.CaptureFixture[str]) -> None:
    data = _broken_lzw()
    _decode(data)  # our handlers are in place now
    with pytest.raises(OSError, match="decoder error"), Image.open(io.BytesIO(data)) as image:
        image.load()
    assert "LZWDecode: Not enough data" in capfd.readouterr().err
    with overheard() as heard, pytest.warns(UserWarning, match="nobody's"):
        warnings.warn("nobody's business but ours", UserWarning, stacklevel=1)
    assert heard == []


def test_remarks_are_short_and_the_same_everywhere() -> None:
    assert (
        remark("x", "cannot read <_io.BytesIO object at 0x7f06a1b2c3d4>.")
        == "x: cannot read <_io.BytesIO object>"
    )
    assert remark("x", "a\x1b[31m\nb\u202ec") == "x: a [31m b c"
    assert len(remark("x", "long " * 1000)) == MAX_CHARS


def test_every_refusal_of_a_jpeg_carries_the_words_of_libjpeg() -> None:
    data = _encode("JPEG", quality=90)
    assert _decode(data[: len(data) // 2]).warnings == ("libjpeg: Premature end of JPEG file",)
    damaged = bytearray(data)
    middle = len(data) // 2
    damaged[middle : middle + 3] = b"\xff\xd9\x00"
    decoded = _decode(bytes(damaged))
    assert decoded.reason in ("corrupt", "truncated")
    assert decoded.warnings[0].startswith("libjpeg: ")


def test_a_damaged_cmyk_jpeg_is_judged_as_one_of_three_colours() -> None:
    """Pillow alone takes it without a word."""
    verdicts = {}
    for mode in ("RGB", "CMYK"):
        data = bytearray(_encode("JPEG", mode=mode, quality=90))
        start = data.rfind(b"\xff\xda")
        data[-2:-2] = b"\0" * 40  # stray bytes: a remark
        stray = _decode(bytes(data))
        assert stray.reason is None
        assert stray.warnings[0] == "libjpeg_remark"
        assert "extraneous bytes before marker 0xd9" in stray.warnings[1]
        del data[(start + len(data)) // 2 : -60]  # a hole: damage
        hole = _decode(bytes(data))
        verdicts[mode] = (hole.reason, hole.warnings)
    assert verdicts["CMYK"] == verdicts["RGB"]
    assert verdicts["CMYK"][0] in ("corrupt", "truncated")


def test_a_damaged_arithmetic_jpeg_carries_the_remark() -> None:
    """Pillow hears of nothing but a missing end."""
    sound = _decode(ARITHMETIC_JPEG)
    assert (sound.reason, sound.width, sound.height, sound.warnings) == (None, 48, 32, ())
    damaged = bytearray(ARITHMETIC_JPEG)
    damaged[400] ^= 0x3C
    decoded = _decode(bytes(damaged))
    assert decoded.reason is None
    assert decoded.warnings[0] == "libjpeg_remark"
    assert decoded.warnings[1].startswith("libjpeg: Corrupt JPEG data: ")
    cut = _decode(ARITHMETIC_JPEG[:500])
    assert (cut.reason, cut.warnings) == ("truncated", ("libjpeg: Premature end of JPEG file",))
