"""A small HTTP server on loopback that can misbehave, and a resolver that lets any name lead to it."""

import asyncio
import contextlib
import socket
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field

from aiohttp.abc import AbstractResolver, ResolveResult

Handler = Callable[[asyncio.StreamWriter, "Request"], Awaitable[None]]
PICTURE = b"\xff\xd8\xff\xe0 not quite a picture " * 40


@dataclass(frozen=True)
class Request:
    """One request as the server saw it."""

    host: str  # of the Host header, without the port
    path: str
    headers: Mapping[str, str]  # names in lower case
    time_s: float  # of the monotonic clock


def answer(
    body: bytes = PICTURE, status: int = 200, headers: Mapping[str, str] | None = None, wait_s: float = 0.0
) -> Handler:
    """A handler that answers as servers do."""

    async def handle(writer: asyncio.StreamWriter, _request: Request) -> None:
        await asyncio.sleep(wait_s)
        lines = {"Content-Length": str(len(body)), **(headers or {})}
        head = f"HTTP/1.1 {status} X\r\n" + "".join(f"{k}: {v}\r\n" for k, v in lines.items())
        writer.write(head.encode() + b"\r\n" + body)
        await writer.drain()

    return handle


@dataclass
class Loopback:
    """The server: `routes` by path (or `host/path`), and what it has seen."""

    routes: dict[str, Handler] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    most_at_once: Counter[str] = field(default_factory=Counter)  # requests under way, by host
    _under_way: Counter[str] = field(default_factory=Counter)
    port: int = 0

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    def asked(self, path: str) -> int:
        """How often a path was asked for."""
        return sum(request.path == path for request in self.requests)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                while not writer.is_closing():
                    await self._serve_one(await reader.readuntil(b"\r\n\r\n"), writer)
            writer.close()
        except asyncio.CancelledError:
            writer.transport.abort()

    async def _serve_one(self, head: bytes, writer: asyncio.StreamWriter) -> None:
        first, *lines = head.decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines if line)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        host = headers.get("host", "").partition(":")[0]
        request = Request(host, first.split(" ")[1], headers, time.monotonic())
        self.requests.append(request)
        self._under_way[host] += 1
        self.most_at_once[host] = max(self.most_at_once[host], self._under_way[host])
        handler = self.routes.get(host + request.path) or self.routes.get(request.path)
        try:
            await (handler or answer(b"", 404))(writer, request)
        finally:
            self._under_way[host] -= 1


@contextlib.contextmanager
def serving(host: str = "127.0.0.1") -> Iterator[Loopback]:
    """Run a server in a thread of its own."""
    server = Loopback()
    loop = asyncio.new_event_loop()
    ready = threading.Event()
    stop = asyncio.Event()

    async def main() -> None:
        async with await asyncio.start_server(server.serve, host, 0) as listening:
            server.port = listening.sockets[0].getsockname()[1]
            ready.set()
            await stop.wait()
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.sleep(0)  # for the connections to see that they are closed

    thread = threading.Thread(target=lambda: loop.run_until_complete(main()), daemon=True)
    thread.start()
    ready.wait(10)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


class FakeResolver(AbstractResolver):
    """Lets names stand for addresses: those given, and any other for 127.0.0.1."""

    def __init__(self, addresses: Mapping[str, list[str]] | None = None) -> None:
        self.addresses = addresses or {}
        self.asked: list[str] = []

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_UNSPEC,  # noqa: ARG002
    ) -> list[ResolveResult]:
        self.asked.append(host)
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=0,
            )
            for address in self.addresses.get(host, ["127.0.0.1"])
        ]

    async def close(self) -> None:
        pass
