"""What a run directory says of the code that made it."""

import os
import re
import shutil
import subprocess

import pytest

from vqprior.runtime import run_dir
from vqprior.runtime.files import write_file


@pytest.fixture
def commit():
    run_dir.git_commit.cache_clear()
    yield run_dir.git_commit
    run_dir.git_commit.cache_clear()


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_the_commit_is_that_of_this_code_and_not_of_a_project_that_it_is_installed_in(
    commit, tmp_path, monkeypatch
):
    """As in a virtual environment inside the user's own repository."""
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    (tmp_path / "mine.py").touch()
    subprocess.run([*git, "add", "mine.py"], check=True)
    subprocess.run([*git, "commit", "-qm", "mine"], check=True)
    (tmp_path / "run_dir.py").touch()
    monkeypatch.setattr(run_dir, "__file__", str(tmp_path / "run_dir.py"))
    assert commit() is None
    subprocess.run([*git, "add", "run_dir.py"], check=True)
    subprocess.run([*git, "commit", "-qm", "ours"], check=True)
    index = (tmp_path / ".git" / "index").stat().st_mtime_ns
    os.utime(tmp_path / "mine.py", (1, 1))  # git must look at it again, and could note what it saw
    commit.cache_clear()
    clean = commit()
    assert re.fullmatch("[0-9a-f]{7,}", clean)
    assert (tmp_path / ".git" / "index").stat().st_mtime_ns == index
    (tmp_path / "mine.py").write_text("changed")
    commit.cache_clear()
    assert commit() == f"{clean}+"


def test_text_with_a_name_that_is_no_utf8_is_written_as_utf8(tmp_path):
    write_file(tmp_path / "page", os.fsdecode(b"<p>caf\xe9 ") + "caf\u00e9</p>")
    assert (tmp_path / "page").read_text(encoding="utf-8") == r"<p>caf\udce9 " + "caf\u00e9</p>"
