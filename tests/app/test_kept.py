"""What visitors leave on disk, without a page."""

import asyncio
import os
from itertools import count

import pytest

from vqprior.app.kept import NewestKept, keep_newest


def write(folder, sizes: dict[str, int]) -> None:
    """Files of so many bytes, the oldest first."""
    for age, (name, size) in enumerate(sizes.items()):
        path = folder / name / "picture.png"
        path.parent.mkdir()
        path.write_bytes(b"x" * size)
        os.utime(path, ns=(age, age))


@pytest.mark.parametrize(
    ("most", "expected"), [(100, "abcd"), (10, "abcd"), (9, "bcd"), (6, "cd"), (3, "d"), (2, "d"), (1, "")]
)
def test_the_newest_files_stay(tmp_path, most, expected):
    write(tmp_path, {"a": 1, "b": 3, "c": 4, "d": 2})
    keep_newest(tmp_path, most)
    assert [path.parent.name for path in sorted(tmp_path.rglob("*.png"))] == [*expected]


@pytest.fixture
def post(tmp_path):
    """Send so many bytes to an application that stores them: the status, and what is kept then."""

    numbers = count()

    async def store(scope, receive, send):
        message = await receive()
        if scope["method"] == "POST":
            (tmp_path / f"{next(numbers)}").write_bytes(message["body"])
        if message["body"] == b"broken":
            raise ZeroDivisionError
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    app = NewestKept(store, tmp_path, request=6, kept=10)

    def call(body: bytes, method: str = "POST", length: int | None = None) -> tuple[int, int]:
        sent = []

        async def receive():
            return {"type": "http.request", "body": body}

        async def send(message):
            sent.append(message)

        size = len(body) if length is None else length
        headers = [(b"content-length", str(size).encode())] if size >= 0 else []
        asyncio.run(app({"type": "http", "method": method, "headers": headers}, receive, send))
        return sent[0]["status"], sum(path.stat().st_size for path in tmp_path.iterdir())

    return call


def test_however_many_are_sent_so_much_is_kept(post):
    assert [post(b"123456") for _ in range(2)] == [(200, 6), (200, 6)]
    assert [post(b"1234") for _ in range(3)] == [(200, 10), (200, 8), (200, 8)]  # the large one goes


def test_what_a_request_that_failed_has_left_is_counted(post, tmp_path):
    post(b"123456")
    with pytest.raises(ZeroDivisionError):
        post(b"broken")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"broken"]


def test_a_request_that_is_too_large_or_says_no_length_is_not_read(post):
    assert post(b"1234567") == (413, 0) and post(b"1", length=-1) == (411, 0)
    assert post(b"", method="GET", length=-1) == (200, 0)
