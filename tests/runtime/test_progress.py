"""Bars in a terminal, and plain lines without one."""

import io
from contextlib import redirect_stderr

from vqprior.runtime import progress
from vqprior.runtime.progress import Progress, bar


class Terminal(io.StringIO):
    """Somebody looks at it."""

    def isatty(self) -> bool:
        return True


def test_without_a_terminal_short_work_says_nothing():
    with redirect_stderr(io.StringIO()) as stderr:
        assert [*bar(range(5), "short")] == [*range(5)]
    assert stderr.getvalue() == ""


def test_without_a_terminal_long_work_says_plain_lines(monkeypatch, capsys):
    monkeypatch.setattr(progress, "EVERY", 0.0)
    with redirect_stderr(io.StringIO()) as stderr:
        work()
    said = stderr.getvalue()
    assert "\r" not in said and "\x1b" not in said
    lines = said.splitlines()
    assert [line.split(",")[0] for line in lines[-3:]] == [f"stage 1: {step} of 5" for step in (3, 4, 5)]
    assert "step/s" in lines[-1] and "left, loss=0.25" in lines[-1]
    assert capsys.readouterr().out.splitlines() == [f"a line beside {loss}" for loss in (0.5, 0.25, 0.125)]


def work() -> None:
    """Three steps."""
    shown = Progress("stage 1", start=2, stop=5, batch_size=8, active=True)
    for loss in (0.5, 0.25, 0.125):
        shown.advance()
        shown.show({"loss": loss})
        shown.say(f"a line beside {loss}")
    shown.close()


def test_other_processes_say_nothing(monkeypatch, capsys):
    monkeypatch.setattr(progress, "EVERY", 0.0)
    with redirect_stderr(io.StringIO()) as stderr:
        shown = Progress("stage 1", start=0, stop=1, batch_size=8, active=False)
        shown.advance()
        shown.say("a line")
        shown.close()
        assert [*bar(range(3), "work", active=False)] == [0, 1, 2]
    assert stderr.getvalue() == "" and capsys.readouterr().out == ""


def test_in_a_terminal_there_is_a_bar(capsys):
    with redirect_stderr(Terminal()) as stderr:
        work()
    said = stderr.getvalue()
    assert "\r" in said and "5/5" in said.split("\r")[-1] and "loss=0.125" in said
