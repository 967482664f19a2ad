"""Tars of somebody else's WebDataset: images, captions, labels and masks, as tarfile writes them."""

import io
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
from drawn_dataset import draw_jpeg
from PIL import Image


def draw_png(number: int) -> bytes:
    """Blocks of colours; each number has others."""
    colours = np.random.default_rng(number).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(colours).resize((40, 44), Image.Resampling.NEAREST).save(out, "PNG")
    return out.getvalue()


def write_tar(path: Path, members: Sequence[tuple[str, bytes]]) -> Path:
    """A tar with these members; compressed where its name says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def sample(number: int, *, folder: str = "") -> list[tuple[str, bytes]]:
    """What somebody keeps of a picture: every third is a PNG in capitals, all have a caption and a mask."""
    key = f"{folder}{number:05d}"
    image = (f"{key}.PNG", draw_png(number)) if number % 3 == 2 else (f"{key}.jpg", draw_jpeg(number))
    return [image, (f"{key}.txt", b"a picture"), (f"{key}.json", b"{}"), (f"{key}.seg.png", draw_png(7))]


def write_webdataset(folder: Path, *, sizes: Sequence[int] = (7, 5, 8), suffix: str = ".tar") -> list[bytes]:
    """Tars `in-000000.tar` … of so many samples; returns the images in their order."""
    images: list[bytes] = []
    for shard, size in enumerate(sizes):
        members = [m for n in range(len(images), len(images) + size) for m in sample(n)]
        write_tar(folder / f"in-{shard:06d}{suffix}", members)
        images += [data for name, data in members if name.endswith((".jpg", ".PNG"))]
    return images


class _Quiet(SimpleHTTPRequestHandler):
    """Serves a folder; counts what is asked for, and cuts answers short where it is told to."""

    def log_message(self, *_arguments: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        server: Any = self.server
        server.asked.append(self.path)
        data = Path(self.translate_path(self.path)).read_bytes()
        cut = server.cuts.pop(self.path, None)
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[:cut])


@contextmanager
def serving(folder: Path) -> Iterator[Any]:
    """A server of a folder on loopback: `url`, what was `asked`; `cuts` holds bytes of next answers."""
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    server.asked, server.cuts = [], {}
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
