"""A WebSocket client. Prints what it saw as JSON."""

import asyncio
import json
import os
import sys

import websockets


async def main(url):
    seen = {}
    async with websockets.connect(url, max_size=8 << 20, proxy=None) as socket:
        await socket.send("hello, Welt: \N{SNOWMAN}")
        seen["text"] = await asyncio.wait_for(socket.recv(), 20)
        sizes = [0, 1, 125, 126, 65_535, 65_536, 3_000_000]
        whole = []
        for size in sizes:
            data = os.urandom(size)
            await socket.send(data)
            whole.append(await asyncio.wait_for(socket.recv(), 20) == data)
        seen["binary"] = all(whole)
        await socket.send(["in ", "three ", "pieces"])
        seen["fragments"] = await asyncio.wait_for(socket.recv(), 20)
        waiter = await socket.ping(b"are you there")
        seen["pong"] = await asyncio.wait_for(waiter, 20) >= 0
        await socket.close(code=4001, reason="enough")
        seen["close"] = [socket.close_code, socket.close_reason]

    # A message that the server finds too large: the server's own close code comes through.
    async with websockets.connect(url, max_size=None, proxy=None) as socket:
        try:
            await socket.send(b"x" * (5 << 20))
            await asyncio.wait_for(socket.recv(), 20)
            seen["too_large"] = "answered"
        except websockets.ConnectionClosed as closed:
            seen["too_large"] = "closed"
    print(json.dumps(seen))


asyncio.run(main(sys.argv[1]))
