"""What lies on disk for visitors, their uploads and downloads: bounded, however many come."""

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

FILE = 100 * 2**20  # bytes of an upload, at most
REQUEST = FILE + 2**20  # of all that is sent at once, the form around a file included
KEPT = 20 * FILE  # of all files, at most; the newest stay


class NewestKept:
    """An application (ASGI) that reads no request that is too large, and after each deletes the oldest files
    of a folder.

    Gradio bounds each file, but neither how many come in a request nor how many are kept.
    """

    def __init__(self, app: Callable, folder: Path, request: int = REQUEST, kept: int = KEPT):
        self.app, self.folder, self.request, self.kept = app, folder, request, kept

    async def __call__(self, scope: dict[str, Any], receive: Callable, send: Callable) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            return await self.app(scope, receive, send)
        length = dict(scope["headers"]).get(b"content-length")
        if length is None:
            return await _refuse(send, 411, "say how many bytes are sent (Content-Length)")
        if int(length) > self.request:
            return await _refuse(send, 413, f"{int(length):,} bytes are sent; {self.request:,} are the most")
        try:
            await self.app(scope, receive, send)
        finally:
            await asyncio.to_thread(keep_newest, self.folder, self.kept)


async def _refuse(send: Callable, status: int, words: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": words.encode()})


def keep_newest(folder: Path, most: int) -> None:
    """Delete the oldest files under a folder, so that those left have at most so many bytes."""
    found = []
    for parent, _, names in os.walk(folder):  # which passes over folders that Gradio deletes meanwhile
        for path in (Path(parent, name) for name in names):
            with suppress(FileNotFoundError):  # another request may delete them too
                status = path.stat()
                found.append((status.st_mtime_ns, status.st_size, path))
    total = 0
    for _, size, path in sorted(found, reverse=True):
        total += size
        if total > most:
            path.unlink(missing_ok=True)
