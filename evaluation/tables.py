"""The figures of an evaluation as text."""

import math
from typing import Any

from .subject import LEARNT, ROWS

Metrics = dict[str, Any]


def text(metrics: Metrics) -> str:
    """All parts that were measured."""
    tables = {"stage1": _stage1, "stage2": _stage2, "ladder": _ladder, "labels": _labels, "copies": _copies}
    tables["archives"] = _archives
    return "\n\n".join(table(metrics[name]) for name, table in tables.items() if name in metrics)


def _titled(title: str, rows: list[tuple[str, str]]) -> str:
    return "\n".join([title, "-" * len(title), *(f"  {name:<44}{value}".rstrip() for name, value in rows)])


def _stage1(one: Metrics) -> str:
    rows = [
        ("MSE on [0, 1]", f"{one['mse']:.5f}"),
        ("MSE / variance", f"{one['relative_mse']:.4f}"),
        ("PSNR, SSIM", f"{one['psnr']:.2f} dB, {one['ssim']:.3f}"),
        ("codebook perplexity", f"{one['perplexity']:.1f} of {one['K']}"),
        ("codes used", f"{one['usage']:.1%}"),
    ]
    return _titled(f"stage 1: reconstruction of {one['images']:,} test images", rows)


def _stage2(two: Metrics) -> str:
    rows = [
        ("NLL", f"{two['bits_per_code']:.3f} bits/code ({two['nats_per_code']:.3f} nats/code)"),
        ("NLL of an image", f"{two['bits_per_image']:.1f} bits"),
        ("NLL on train", f"{two['bits_per_code_train']:.3f} bits/code"),
        ("per-position model", f"{two['per_position_bits_per_code']:.3f} bits/code"),
        ("unigram model", f"{two['unigram_bits_per_code']:.3f} bits/code"),
    ]
    if "bits_per_dim" in two:
        both = f"{two['decoder_bits_per_dim']:.3f} of the decoder + {two['prior_bits_per_dim']:.3f} of the prior"
        rows.insert(2, ("at most, for the pixels", f"{two['bits_per_dim']:.3f} bits/dim: {both}"))
    if "posterior_accuracy" in two:
        rows.append(("arg max p(codes | label) is right", f"{two['posterior_accuracy']:.2%} of {two['posterior_images']:,}"))
    return _titled(f"stage 2: prior of the codes of {two['images']:,} test images", rows)


COLUMNS = {"kid": "KID", "precision": "precision", "recall": "recall", "density": "density", "coverage": "coverage"}


def _ladder(ladder: Metrics) -> str:
    title = f"against {ladder['images']:,} real test images, as many in each row, features: {ladder['features']}"
    columns = {"frechet": ladder["distance"], **COLUMNS}
    header = f"  {'':<44}" + "".join(f"{name:>{_width(column)}}" for column, name in columns.items())
    rows = [
        f"  {ROWS[name]:<44}" + "".join(f"{_cell(figures, column):>{_width(column)}}" for column in columns)
        for name, figures in ladder["rows"].items()
    ]
    return "\n".join([title, "-" * len(title), header, *rows])


def _width(column: str) -> int:
    """Of a column, its distance to the one before included."""
    return {"kid": 21, "frechet": 16}.get(column, 12)


def _cell(figures: Metrics, column: str) -> str:
    """A figure; a dash for one that is not there."""
    if column not in figures:
        return "-"
    return kid_text(figures) if column == "kid" else f"{figures[column]:.4g}"


def kid_text(figures: Metrics) -> str:
    """KID, where it is of several subsets with their deviation, in two digits of which both are rounded alike."""
    mean, deviation = figures["kid"], figures["kid_std"]
    if deviation < 1e-9:
        return f"{mean:.3g}"
    decimals = max(0, 1 - math.floor(math.log10(deviation)))
    return f"{mean:.{decimals}f} ± {deviation:.{decimals}f}"


def _archives(archives: Metrics) -> str:
    title = "other samples, against real test images"
    columns = {"images": "images", "frechet": "Frechet", **COLUMNS, "label_accuracy": "right label", "cas": "CAS"}
    header = f"  {'':<44}" + "".join(f"{name:>{_width(column)}}" for column, name in columns.items()) + "  features"
    rows = [
        f"  {file[-43:]:<44}"
        + "".join(f"{_cell(figures, column):>{_width(column)}}" for column in columns)
        + f"  {figures['features']}"
        for file, figures in archives.items()
    ]
    return "\n".join([title, "-" * len(title), header, *rows])


def _labels(labels: Metrics) -> str:
    rows = [
        ("real test images", f"{labels['classifier_accuracy']:.2%}"),
        ("reconstructions", f"{labels['label_accuracy_reconstructions']:.2%}"),
        ("samples", f"{labels['label_accuracy']:.2%}"),
    ]
    agreement = _titled("a classifier of real images gives the label asked for", rows)
    rows = [(f"learnt from {LEARNT[name]}", f"{accuracy:.2%}") for name, accuracy in labels["cas"].items()]
    title = f"classification accuracy score: {labels['images']:,} images to learn from, {labels['test_images']:,} test images"
    return f"{agreement}\n\n{_titled(title, rows)}"


def _copies(copies: Metrics) -> str:
    rows = [(f"in {space}", f"{copies[space]['share']:.2%}") for space in ("pixels", "features") if space in copies]
    return _titled(f"{copies['images']:,} samples: nearer to a training image than 99 % of test images are", rows)
