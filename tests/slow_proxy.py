"""A TCP proxy on loopback that lets every request wait, as a network does."""

import asyncio
import sys
from contextlib import suppress


async def _relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, wait_s: float) -> None:
    with suppress(ConnectionError, asyncio.CancelledError):
        while data := await reader.read(1 << 16):
            if wait_s:
                await asyncio.sleep(wait_s)
            writer.write(data)
            await writer.drain()
    writer.close()


async def serve(target: int, *, wait_s: float) -> None:
    """Print the port that is listened on, and pass on to port `target` till killed.

    What a client sends is a request in one piece; each waits `wait_s`, beside the others. What comes back
    comes as fast as it can.
    """

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", target)
        await asyncio.gather(_relay(reader, back, wait_s), _relay(there, writer, 0))

    server = await asyncio.start_server(connect, "127.0.0.1", 0, limit=1 << 20)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), wait_s=float(sys.argv[2])))
