"""How many images a second the downloader fetches on one core from a server on loopback on another.

    python tests/benchmarks/bench_download.py [--images N] [--bytes N] [--hosts N] [--per-host N]

The server and the downloader are processes of their own, each pinned to a core. The server counts the
requests that it has under way for each host; the most that it ever saw is part of the line. The reference
beside it is a bare aiohttp client in the same process: as many requests at once, no checks, nothing
kept. Every answer takes 5 ms; all hosts are this machine.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path
from typing import ClassVar

import aiohttp

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from loopback import FakeResolver

from curation.ingest.web.download import Downloads, download
from curation.ingest.web.download_config import DownloadConfig


class _Server(asyncio.Protocol):
    """As little of a server as can be: it must not be what is measured."""

    body = b""
    delay_s = 0.0
    under_way: ClassVar[Counter[bytes]] = Counter()
    most: ClassVar[Counter[bytes]] = Counter()  # by host, since it was last asked for

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.buffer = b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while b"\r\n\r\n" in self.buffer:
            head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
            host = head.partition(b"Host: ")[2].partition(b":")[0]
            self.under_way[host] += 1
            self.most[host] = max(self.most[host], self.under_way[host])
            if head.startswith(b"GET /most"):
                del self.under_way[host]
                most = b"%d" % max(self.most.values())
                self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(most) + most)
                self.most.clear()
            elif head.startswith(b"GET /robots.txt"):
                self.reply(host, b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n")
            else:
                answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(self.body) + self.body
                asyncio.get_running_loop().call_later(self.delay_s, self.reply, host, answer)

    def reply(self, host: bytes, answer: bytes) -> None:
        self.under_way[host] -= 1
        self.transport.write(answer)  # type: ignore[attr-defined]


def serve(pipe: Connection, core: int, num_bytes: int, delay_s: float) -> None:
    """Serve until terminated; GET /most tells the most requests that any host has had under way at once."""
    os.sched_setaffinity(0, {core})
    _Server.body, _Server.delay_s = os.urandom(num_bytes), delay_s

    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(_Server, "127.0.0.1", 0, backlog=1024)
        pipe.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(main())


async def fetch_bare(urls: list[str], num_at_once: int) -> int:
    """The reference: aiohttp alone."""
    left = iter(urls)
    total = 0
    connector = aiohttp.TCPConnector(limit=0, resolver=FakeResolver())
    async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:

        async def worker() -> None:
            nonlocal total
            for url in left:
                async with session.get(url) as response:
                    total += len(await response.read())

        await asyncio.gather(*(worker() for _ in range(num_at_once)))
    return total


def measure(options: argparse.Namespace, port: int) -> dict[str, float]:
    """Fetch with both, in turns; the best time of each, and the most requests that we had at one host."""
    urls = [f"http://h{i % options.hosts}.example:{port}/{i}.jpg" for i in range(options.images)]
    config = DownloadConfig(
        allow_private=("127.0.0.0/8",), max_requests_per_host=options.per_host, max_requests=options.at_once
    )
    found = {"ours_s": float("inf"), "bare_s": float("inf"), "most_at_once": 0.0}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.repeats):
            _most(port)
            start = time.monotonic()
            setting = Downloads(Path(folder), resolver=FakeResolver())
            assert all(fetched.reason is None for fetched in download(urls, config, setting))
            found["ours_s"] = min(found["ours_s"], time.monotonic() - start)
            found["most_at_once"] = max(found["most_at_once"], _most(port))
            start = time.monotonic()
            asyncio.run(fetch_bare(urls, options.hosts * options.per_host))
            found["bare_s"] = min(found["bare_s"], time.monotonic() - start)
    return found


def _most(port: int) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/most") as response:
        return int(response.read())


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--bytes", type=int, default=10_000)
    parser.add_argument("--hosts", type=int, default=16)
    parser.add_argument("--per-host", type=int, default=4)
    parser.add_argument("--at-once", type=int, default=256)
    parser.add_argument("--delay-ms", type=float, default=5.0, help="of every answer")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(
        target=serve, args=(theirs, cores[-1], options.bytes, options.delay_ms / 1e3), daemon=True
    )
    server.start()
    os.sched_setaffinity(0, {cores[0]})
    found = measure(options, ours.recv())
    server.terminate()
    server.join()
    line = {
        "what": "images fetched from loopback on one core",
        "images": options.images,
        "bytes_each": options.bytes,
        "images_per_s": round(options.images / found["ours_s"], 1),
        "bare_aiohttp_per_s": round(options.images / found["bare_s"], 1),
        "ratio": round(found["bare_s"] / found["ours_s"], 3),
        "per_host_limit": options.per_host,
        "most_at_one_host": int(found["most_at_once"]),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
