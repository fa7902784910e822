import socket
from datetime import timedelta
from time import monotonic

from torch.distributed import TCPStore

from vqprior.runtime import rendezvous

SOON = timedelta(seconds=60)


def test_without_restarts_torch_is_left_to_itself(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "0")
    assert rendezvous.fresh_store(SOON) == {}
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE")
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "3")
    assert rendezvous.fresh_store(SOON) == {}


def test_a_port_that_a_dead_process_left_behind_is_passed_over(monkeypatch):
    """The second process of an attempt looks before the first has told the new port, as after a restart."""
    shared = TCPStore("localhost", 0, is_master=True, wait_for_workers=False, timeout=SOON)
    # bound, so that nobody else takes it, and refusing, since it does not listen
    with socket.socket() as dead:
        dead.bind(("localhost", 0))
        shared.set(rendezvous.PORT, str(dead.getsockname()[1]))
        environment = {
            "TORCHELASTIC_USE_AGENT_STORE": "True",
            "TORCHELASTIC_MAX_RESTARTS": "3",
            "WORLD_SIZE": "2",
            "RANK": "0",
        }
        environment |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(shared.port)}
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        first: dict = {}

        class Shared:
            """The shared store; after the second look at it the first process arrives."""

            looks = 0

            def get(self, key: str) -> bytes:
                self.looks += 1
                if self.looks == 3:
                    first.update(rendezvous.fresh_store(SOON))
                return shared.get(key)

        found = rendezvous._find("localhost", Shared(), deadline=monotonic() + SOON.total_seconds())
    assert (first["rank"], first["world_size"]) == (0, 2)
    first["store"].set("word", "hello")
    assert found.get("word") == b"hello"


def test_words_are_said_once_an_attempt_and_by_each_that_cannot_ask(monkeypatch):
    shared = TCPStore("localhost", 0, is_master=True, wait_for_workers=False, timeout=SOON)
    told = {"USE_AGENT_STORE": "True", "RESTART_COUNT": "0"}
    environment = {f"TORCHELASTIC_{name}": value for name, value in told.items()}
    for name, value in (environment | {"MASTER_ADDR": "localhost", "MASTER_PORT": str(shared.port)}).items():
        monkeypatch.setenv(name, value)
    assert [rendezvous.first_to_say(text) for text in ("a", "a", "b")] == [True, False, True]
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert rendezvous.first_to_say("a")
    with socket.socket() as nobody:
        nobody.bind(("localhost", 0))  # refuses: it does not listen
        monkeypatch.setenv("MASTER_PORT", str(nobody.getsockname()[1]))
        monkeypatch.setattr(rendezvous, "PATIENCE", timedelta(seconds=1))
        assert rendezvous.first_to_say("a") and rendezvous.first_to_say("a")
