"""Where the page is shown, and what is refused before it is."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import urllib.request

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
def test_a_signal_ends_it_without_a_traceback_and_leaves_no_file(tmp_path, number):
    """Also while a page is open, which has a request that does not end."""
    pytest.importorskip("gradio")
    command = [sys.executable, "-m", "vqprior", "app", str(RUN), "--port", "0"]
    env = {**environment(None), "TMPDIR": str(tmp_path)}
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    server = subprocess.Popen(command, cwd=ROOT, env=env, text=True, **pipes)
    try:
        address = next(line for line in server.stdout if line.startswith("app: http://127.0.0.1:")).split()[1]
        assert [*tmp_path.iterdir()]
        with urllib.request.urlopen(f"{address}/gradio_api/heartbeat/a", timeout=60) as beats:
            assert beats.read(1)
            os.kill(server.pid, number)
            _, said = server.communicate(timeout=60)
        assert server.returncode == 0 and not [*tmp_path.iterdir()]
        assert "Traceback" not in said and "ERROR" not in said
    finally:
        server.kill()
        server.wait()
