from vqprior.evaluation import tables


def row(kid_std: float) -> dict[str, float]:
    shares = dict.fromkeys(("precision", "recall", "density", "coverage"), 0.5)
    return {"frechet": 12.5, "kid": -0.00012, "kid_std": kid_std, **shares}


def test_kid_has_its_deviation_where_there_are_several_subsets():
    names = ("train", "reconstructions", "samples")
    ladder = {"images": 2000, "features": "classifier", "distance": "FD(classifier)", "rows": dict.fromkeys(names, row(0.0041))}
    archives = {"a.npz": {"images": 500, "features": "classifier", "cas": 0.9, **row(0.0)}}
    printed = tables.text({"ladder": ladder, "archives": archives})
    assert printed.count("-0.0001 ± 0.0041") == 3 and printed.count("±") == 3
    lines = printed.splitlines()
    assert len({len(line) for line in lines if line.startswith("  re") or "FD(classifier)" in line}) == 1
    assert lines[-1].split() == ["a.npz", "500", "12.5", "-0.00012", "0.5", "0.5", "0.5", "0.5", "-", "0.9", "classifier"]
