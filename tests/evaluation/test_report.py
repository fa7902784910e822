"""The page of a run: what is on it, that it asks for nothing, and what a browser makes of it."""

import html
import json
import re
import shutil
import subprocess
from types import SimpleNamespace

import pytest

from tests.launch import run_processes
from vqprior.evaluation.parts import tables
from vqprior.evaluation.plots import _draw_curves
from vqprior.evaluation.report import _drawn, _environment
from vqprior.evaluation.subject import Subject

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def reported(finished_run, tmp_path_factory):
    """A tiny run with all its figures and its page."""
    run = tmp_path_factory.mktemp("reported") / "run"
    shutil.copytree(finished_run, run)
    archive = run / "samples" / "samples.npz"
    done = run_processes(
        ["evaluate", run, "--classifier_steps", 3, "--archives", archive, "then", "report", run]
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return run


def test_everything_is_in_the_one_file(reported):
    page = (reported / "report.html").read_text()
    titles = [
        "Samples",
        "Reconstructions",
        "The ladder",
        "Other samples",
        "Nearest training images",
        "Where the bits go",
    ]
    for words in [*titles, "Use of the codes", "The codebook", "FD(classifier)", "ant, bee", "learning_rate"]:
        assert words in page, words
    assert page.count('<img src="data:image/png;base64,') == 5 and page.count("<svg") == 5


def test_a_command_that_was_typed_again_stands_on_the_page_once_and_can_be_pasted():
    run, protocol = SimpleNamespace(), {"steps": {}}
    run.starts = lambda: [{"command": ["run", "x", "--data.root", "my photos"]}] * 3
    assert _environment(run, protocol)["commands"] == "vqprior run x --data.root 'my photos'"


def test_a_curve_of_one_point_is_seen():
    """As that of validation in a short run."""
    axes = pytest.importorskip("matplotlib.figure").Figure().subplots()
    _draw_curves(axes, {"validation": ([7], [0.5])}, "error")
    assert axes.lines[0].get_marker() == "."


def test_of_a_run_that_was_exported_no_command_is_shown():
    run, protocol = SimpleNamespace(), {"steps": {}}
    run.starts = lambda: [{"command": []}] * 3  # which `vqprior export` takes out
    assert "commands" not in _environment(run, protocol)


def test_no_request_leaves_the_page(reported):
    page = (reported / "report.html").read_text()
    assert "default-src 'none'" in page
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!data:|#)""", page)
    assert "<script" not in page and "@import" not in page and not re.findall(r"url\((?!#)", page)


def test_a_report_before_the_figures_or_of_other_weights_is_refused(
    finished_run, reported, tmp_path, command
):
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    assert command("report", run, "--file", tmp_path / "page.html")[0] == 0  # `run` has measured two parts
    page = (tmp_path / "page.html").read_text()
    assert "The ladder" not in page and "bits/code" in page
    for damaged in ("{}", "{broken", "[]"):
        (run / "metrics.json").write_text(damaged)
        code, printed = command("report", run)
        assert code == 2 and "damaged" in printed and f"vqprior evaluate {run}" in printed
    (run / "metrics.json").unlink()
    code, printed = command("report", run)
    assert code == 2 and f"vqprior evaluate {run}" in printed
    assert command("evaluate", run, "--only", "reconstruction")[0] == 0
    assert command("train-prior", run, "--stage2.steps", 6)[0] == 0
    code, printed = command("report", run)
    assert (code, "other weights" in printed) == (2, True)


def test_a_page_without_a_place_is_refused_before_anything_is_drawn(
    finished_run, tmp_path, command, monkeypatch
):
    monkeypatch.setattr(Subject, "open", None)
    for file, said in ((tmp_path, "is a folder"), (tmp_path / "no" / "page.html", "make")):
        code, printed = command("report", finished_run, "--file", file)
        assert code == 2 and f"--file {file} is " in printed and said in printed, printed


def test_samples_of_one_class_are_called_so_and_settings_of_evaluate_are_no_flags(
    reported, tmp_path, command
):
    page = tmp_path / "page.html"
    assert command("report", reported, "--sample.label", "bee", "--file", page)[0] == 0
    assert (
        "label bee, guidance 1.0" in page.read_text()
        and "Drawn with seed 0, guidance 1.0" in (reported / "report.html").read_text()
    )
    assert (
        "All of class bee." in page.read_text()
        and "The classes in turn, a column each: ant, bee." in (reported / "report.html").read_text()
    )
    assert command("report", reported, "--only", "ladder")[0] == 2


def test_a_page_of_figures_that_an_earlier_version_left_out_has_dashes(reported, tmp_path, command):
    run = tmp_path / "run"
    shutil.copytree(reported, run)
    whole = json.loads((run / "metrics.json").read_text())
    metrics = {name: {} for name in whole} | {"archives": {"a.npz": {}}}
    (run / "metrics.json").write_text(
        json.dumps(metrics | {"protocol": {"prior": whole["protocol"]["prior"]}})
    )
    assert command("report", run)[0] == 0
    page = (run / "report.html").read_text()
    assert page.count("<td>-</td>") > 50 and "<b>-</b>" in page and "<td>a.npz</td>" in page
    assert "Use of the codes" not in page and "Where the bits go" not in page and page.count("<svg") == 3


def test_the_page_has_the_tables_that_evaluate_prints(reported):
    page = html.unescape((reported / "report.html").read_text())
    for table in tables(json.loads((reported / "metrics.json").read_text())):
        assert f"<caption>{table.title}</caption>" in page
        for name, cells in table.rows:
            assert f"<td>{name}</td>" + "".join(f"<td>{cell.strip()}</td>" for cell in cells) in page


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
@pytest.mark.parametrize("width", [1400, 400])
def test_a_browser_shows_all_of_it_within_the_window(reported, tmp_path, width):
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path / 'profile'}",
        f"--window-size={width},900",
    ]
    page = (reported / "report.html").read_text()
    probe = tmp_path / "page.html"  # as it is, but allowed to say how large it came out
    script = (
        "<script>addEventListener('load', () => document.title = [document.documentElement.scrollWidth <= "
        "innerWidth,"
        "[...document.images].every(i => i.complete && i.naturalWidth > 0)].join())</script>"
    )
    probe.write_text(
        page.replace("style-src", "script-src 'unsafe-inline'; style-src").replace(
            "</head>", script + "</head>"
        )
    )
    done = subprocess.run(
        [CHROMIUM, *flags, "--dump-dom", probe.as_uri()], capture_output=True, text=True, timeout=120
    )
    assert re.search("<title>(.*?)</title>", done.stdout).group(1) == "true,true", done.stderr[-2000:]
    assert re.search(r"<img[^>]*data:image/png", done.stdout)


def test_how_samples_were_drawn_is_said_in_words():
    drawing = {"seed": 0, "label": None, "guidance": 2.0, "top_k": 0, "top_p": 0.9, "precision": "no"}
    assert _drawn(drawing) == "seed 0, guidance 2.0, top-p 0.9, precision fp32"
    assert _drawn({"label": "no"}) == "label no"
