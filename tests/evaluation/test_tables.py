import pytest
import torch

from vqprior.evaluation.parts import ladder, tables
from vqprior.evaluation.tables import Column, Row, column_table, filled, list_table, text


def row(kid_std: float) -> dict[str, float]:
    shares = dict.fromkeys(("precision", "recall", "density", "coverage"), 0.5)
    return {"frechet": 12.5, "kid": -0.00012, "kid_std": kid_std, **shares}


def test_kid_has_its_deviation_where_there_are_several_subsets():
    names = ("train", "reconstructions", "samples")
    measured = dict.fromkeys(names, row(0.0041))
    figures = {"images": 2000, "features": "classifier", "distance": "FD(classifier)", "rows": measured}
    archives = {"a.npz": {"images": 10_000, "features": "classifier", "cas": 0.9, **row(0.0)}}
    printed = text(tables({"ladder": figures, "archives": archives}))
    assert printed.count("-0.0001 ± 0.0041") == 3 and printed.count("±") == 3
    lines = printed.splitlines()
    assert len({len(line) for line in lines if line.startswith("  re") or "FD(classifier)" in line}) == 1
    cells = ["a.npz", "10,000", "12.50", "-0.000120", *["0.5000"] * 4, "-", "0.9000", "classifier"]
    assert lines[-1].split() == cells


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{mse:.3f}, {there[0]} x {there[1]}", "0.500, 2 x 3"),
        ("{psnr:.2f} dB", "- dB"),
        ("{none:.2%}", "-"),
        ("{there[7]} {none[share]:.2%} {rows[samples][frechet]:.4g}", "- - -"),
        (lambda figures: f"{figures['mse'] * 2}", "1.0"),
    ],
)
def test_a_figure_that_is_not_there_is_a_dash(template, expected):
    assert filled(template, {"mse": 0.5, "there": [2, 3], "none": None, "rows": {}}) == expected


def test_a_row_may_go_with_a_figure():
    rows = [Row("always", "{a}"), Row("sometimes", "{b}", only_with="b")]
    assert list_table("of {n:,}", rows, {"n": 1234}).rows == [("always", ["-"])]
    both = list_table("of {n:,}", rows, {"a": 1, "b": 2})
    assert text([both]).split() == ["of", "-", "----", "always", "1", "sometimes", "2"]


def test_columns_stand_below_their_headings_and_of_a_long_name_its_end_is_seen():
    columns = [Column("{what}", "{a:.1f}"), Column("b", "{b}")]
    table = column_table("title", columns, {"x" * 60 + "end": {"a": 1, "b": 2}, "short": {}}, {"what": "A"})
    heading, long, short = text([table]).splitlines()[2:]
    assert len(heading) == len(long) == len(short) and " x" in long and "xend " in long
    assert long.index("1.0") + 2 == heading.index("A") == short.index("-")


def test_a_metric_is_a_function_and_a_line(monkeypatch):
    """It is measured and shown for rows and archives alike; where it was not measured yet, it is a dash."""
    shift = ladder.Metric(lambda real, fake: {"shift": 3.0}, ladder.plain("shift"))
    monkeypatch.setattr(ladder, "METRICS", [shift])
    of_set = ladder.compare(*[ladder.Features(torch.zeros(4, 2))] * 2)
    columns = [column for metric in ladder.METRICS for column in metric.columns]
    table = column_table("", columns, {"new": of_set, "old": {}}, {})
    assert table.columns == ("shift",) and table.rows == [("new", ["3.000"]), ("old", ["-"])]
