"""Where the page is shown, and what is refused before it is."""

import asyncio
import os
import signal
import socket
import subprocess
import sys

import pytest

from tests.launch import ROOT, environment
from vqprior.app.serve import POLICY, KeptToThisMachine

RUN = ROOT / "models" / "mnist"


def test_without_gradio_the_extra_is_named(command, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "vqprior.app.page", raising=False)  # which imports it
    code, printed = command("app", RUN)
    assert code == 2 and "pip install 'vqprior[app]'" in printed


def test_what_cannot_be_shown_is_refused(command, tmp_path):
    assert command("app")[0] == 2 and command("app", tmp_path / "nothing")[0] == 2
    code, printed = command("app", RUN, "--port", 70000)
    assert code == 2 and "between 0 and 65535" in printed


def test_a_port_that_is_taken_is_said(command):
    pytest.importorskip("gradio")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, printed = command("app", RUN, "--port", port)
    assert code == 2 and f"127.0.0.1, port {port}" in printed and "--port 0" in printed


def test_each_answer_carries_the_policy():
    sent = []

    async def answer(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]})
        await send({"type": "http.response.body", "body": b"hello"})

    async def keep(message):
        sent.append(message)

    asyncio.run(KeptToThisMachine(answer)({}, None, keep))
    assert sent[0]["headers"] == [(b"a", b"b"), (b"content-security-policy", POLICY.encode())]
    assert sent[1] == {"type": "http.response.body", "body": b"hello"}


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_leaves_no_file(tmp_path, number):
    pytest.importorskip("gradio")
    command = [sys.executable, "-m", "vqprior", "app", str(RUN), "--port", "0"]
    env = {**environment(None), "TMPDIR": str(tmp_path)}
    server = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True)
    try:
        assert any(line.startswith("app: http://127.0.0.1:") for line in server.stdout)
        assert [*tmp_path.iterdir()]
        os.kill(server.pid, number)
        assert server.wait(timeout=60) == 0 and not [*tmp_path.iterdir()]
    finally:
        server.kill()
        server.wait()
