"""What `python -m benchmarks.gpu` measured, as tables."""

from typing import Any

COLUMNS = (
    "way",
    "batch",
    "steps/s",
    "images/s",
    "step ms",
    "kernels ms",
    "few ms",
    "kernels",
    "waits",
    "MiB",
)


def as_markdown(found: dict[str, Any]) -> str:
    """The figures as tables."""
    about = found["about"]
    lines = [
        "# Measured by `python -m benchmarks.gpu`",
        "",
        *(f"- {name}: {value}" for name, value in about.items() if value is not None),
        "",
        "## Training",
        "",
        f"| preset | stage | {' | '.join(COLUMNS)} |",
        "|---|---|" + "---|" * len(COLUMNS),
        *map(_training_line, found["training"]),
        "",
        "A step of 4 images (few) is the host's time to launch one. Kernels, their time and the waits are of "
        "steps",
        "apart, which the profiler slows. Where kernels run for much less than a step, launches bound it.",
        "Waits for events are left out.",
        "",
        "## Sampling from the cache, fp32",
        "",
        "| preset | batch | ms a code, kernel by kernel | as recorded rows | images/s | one forward, ms "
        "| all codes, in forwards |",
        "|---|---|---|---|---|---|---|",
        *map(_sampling_line, found["sampling"]),
        "",
        "## Encoding, fp32",
        "",
        "| preset | batch | images/s |",
        "|---|---|---|",
        *map(_encoding_line, found["encoding"]),
        "",
        "## Against the CPU",
        "",
        *(f"- {name}: {value}" for name, value in found["checks"].items()),
        *(f"- {name}: {value}" for name, value in found["ways"].items()),
        *map(_codes_line, found["codes"].get("rows", [found["codes"]])),
    ]
    return "\n".join(lines) + "\n"


def _number(row: dict[str, Any], name: str, digits: int = 1) -> str:
    return f"{row[name]:,.{digits}f}" if name in row else row.get("error", "-")


def _training_line(row: dict[str, Any]) -> str:
    head = f"| {row['preset']} | {row['stage'][-1]} | {row['way']} "
    if "step_ms" not in row:
        return f"{head}| {row.get('error', 'not measured: the time was up')} |"
    apart = row.get("apart", {})
    waits = f"{sum(apart['waits'].values()):g}" if "waits" in apart else apart.get("error", "-")
    cells = [str(row["batch"]), _number(row, "steps_per_second"), _number(row, "images_per_second", 0)]
    cells += [_number(row, "step_ms", 2), _number(apart, "kernels_ms", 2), _number(row, "few_ms", 2)]
    cells += [_number(apart, "kernels", 0), waits, _number(row, "allocated_mib", 0)]
    return f"{head}| {' | '.join(cells)} |"


def _sampling_line(row: dict[str, Any]) -> str:
    cells = [_number(row, "ms_a_code", 3), _number(row, "recorded_ms_a_code", 3)]
    cells += [
        _number(row, "images_per_second"),
        _number(row, "forward_ms", 2),
        _number(row, "cached_over_forward", 1),
    ]
    return f"| {row['preset']} | {row['batch']} | {' | '.join(cells)} |"


def _encoding_line(row: dict[str, Any]) -> str:
    return f"| {row['preset']} | {row.get('batch', '')} | {_number(row, 'images_per_second')} |"


def _codes_line(row: dict[str, Any]) -> str:
    if "error" in row:
        return f"- codes of models/mnist: {row['error']}"
    differ = f"{row['codes']:.4%} differ, {row['maps']:.3%} of {row['of']} maps"
    return f"- codes of models/mnist in {row['precision']}: {differ}"
