"""An HTTP proxy on loopback that answers some requests as a store in trouble does.

`python -m tests.faults.faulty_proxy TARGET_PORT KIND FIRST COUNT` prints the port that it listens on.
"""

import asyncio
import sys
from contextlib import suppress
from itertools import count
from typing import Literal, get_args

Kind = Literal["none", "500", "503", "reset", "cut", "stall", "hang"]
STALL_S = 4.0
_ANSWERS = {
    "500": b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    "503": b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
}


async def serve(target: int, kind: Kind, *, first: int, num: int) -> None:
    """Pass requests on to port `target`, but for `num` of them from number `first` on, counted from 0.

    Args:
        target: a port on loopback.
        kind: what becomes of those: an answer of that status; `reset`: no answer; `cut`: half an answer;
            `stall`: an answer after some seconds; `hang`: none as long as the client waits.
        first, num: which requests.
    """
    numbers = count()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            request = await _request(reader)
            is_faulty = first <= next(numbers) < first + num
            if is_faulty and kind in _ANSWERS:
                writer.write(_ANSWERS[kind])
            elif is_faulty and kind == "hang":
                await reader.read()
            elif not is_faulty or kind != "reset":
                if is_faulty and kind == "stall":
                    await asyncio.sleep(STALL_S)
                answer = await _answer(target, request)
                writer.write(answer[: len(answer) // 2] if is_faulty and kind == "cut" else answer)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(connect, "127.0.0.1", 0, limit=1 << 20)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


async def _request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"connection:")]
    num_bytes = next((int(line[15:]) for line in lines if line.lower().startswith(b"content-length:")), 0)
    body = await reader.readexactly(num_bytes)
    return b"\r\n".join([lines[0], b"Connection: close", *lines[1:]]) + body


async def _answer(target: int, request: bytes) -> bytes:
    """What the store says, to its end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", target)
    writer.write(request)
    await writer.drain()
    answer = await reader.read()
    writer.close()
    return answer


if __name__ == "__main__":
    _, port, wanted, start, length = sys.argv
    [chosen] = [known for known in get_args(Kind) if known == wanted]
    asyncio.run(serve(int(port), chosen, first=int(start), num=int(length)))
