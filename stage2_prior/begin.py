"""Stage two from the prior of another run: what must fit, and how its weights are taken over."""

from collections.abc import Sequence

import torch

from vqprior.configs import Config, from_tree
from vqprior.configs.errors import UserError
from vqprior.configs.schema import Stage2
from vqprior.runtime import checkpoint
from vqprior.runtime.checkpoint import Checkpoint, Tensors
from vqprior.runtime.code_maps import Header, Level
from vqprior.runtime.lineage import differing, encodes_as, lineage, refuse_misfits, source_run
from vqprior.runtime.run_dir import RunDir

from .prior import Prior
from .priors import PRIORS, build

FITTING_CODES = tuple(f"stage1.{name}" for name in ("K", "codes_per_position", "levels"))
"""Settings of the codes that weights are bound to."""


def source_of(
    config: Config,
    label_names: Sequence[str],
    origins: Sequence[str],
    level: int = 0,
) -> Checkpoint | None:
    """The prior of a level of the run that `stage2.init` names (of finer levels `stage2_fine.init`), None
    where it names none.

    Args:
        label_names: the classes here.
        origins: the fingerprints of the VQ-VAE here and of all that it began from, the latest first.

    Raises:
        UserError: there is no such run, or its prior is missing, does not fit, has other classes, or learnt
            codes that have nothing to do with those here.
    """
    settings = config.stage2_of(level)
    section, init = settings.SECTION, settings.init
    if init is None:
        return None
    saved = checkpoint.best(source_run(section, init).stage2_of(level))
    codes, there = saved.meta["codes"], from_tree(saved.meta["config"])
    if codes["vqvae"] not in origins:
        if config.data.source == "codes":
            raise UserError(_other_file(section, init))
        raise UserError(_other_codes(section, init, codes["vqvae"], origins))
    if not _same_classes(codes["label_names"], label_names):
        raise UserError(_other_classes(section, init, codes["label_names"], label_names))
    fitting = dict.fromkeys(
        (*(("above_blocks",) if level else ()), *_fitting(there.stage2_of(level)), *_fitting(settings))
    )
    misfits = differing(there, config, (*FITTING_CODES, *(f"{section}.{name}" for name in fitting)))
    # With classes there is a row for the hidden label, or there is none
    if label_names and bool(there.stage2_of(level).label_dropout) != bool(settings.label_dropout):
        misfits |= differing(there, config, (f"{section}.label_dropout",))
    stage1 = config.stage1
    levels = [Level(stage1.K, 1, 1, stage1.codes_per_position)] * (level + 1)  # no weight is of a map's size
    with torch.device("meta"):
        here = build(settings, levels, len(label_names))
    theirs = saved.tensors(saved.weights)
    refuse_misfits(section, init, misfits, theirs, here.state_dict())
    return saved


def _fitting(settings: Stage2) -> tuple[str, ...]:
    """The settings of a prior that its weights are bound to."""
    kind = PRIORS[settings.prior]
    return ("prior", "channels", "layers", *(f"{settings.prior}.{name}" for name in kind.FITTING))


def _same_classes(there: Sequence[str], here: Sequence[str]) -> bool:
    """Whether both have the same classes, in any order; that cannot be told where two have one name."""
    return list(there) == list(here) or (sorted(there) == sorted(here) and len(set(here)) == len(here))


def _other_classes(section: str, init: str, there: Sequence[str], here: Sequence[str]) -> str:
    """What to say of a prior of other classes."""
    lost, new = [name for name in there if name not in here], [name for name in here if name not in there]
    only = (("there", lost), ("here", new))
    parts = [f"{len(names)} only {place} ({', '.join(names[:5])})" for place, names in only if names]
    return (
        f"{section}.init: the prior of {init} has {len(there)} classes, and there are {len(here)} here: "
        f"{' and '.join(parts) or 'several have one name'}. Give pictures of the same classes, or leave "
        f"--{section}.init out to train a new prior"
    )


def _other_codes(section: str, init: str, theirs: str, origins: Sequence[str]) -> str:
    """What to say of a prior of codes that have nothing to do with those here."""
    here = f"of {origins[0][:12]}, which did not begin from it" if origins else "of one that begins anew"
    return (
        f"{section}.init: the prior of {init} learnt codes of the VQ-VAE {theirs[:12]}, and those here are "
        f"{here}: the same numbers mean other things. Begin stage one from it too, --stage1.init {init} "
        f"(with --stage1.steps 0 it is taken over as it is), or leave --{section}.init out"
    )


def _other_file(section: str, init: str) -> str:
    """What to say of a prior of codes that were imported from another file."""
    return (
        f"{section}.init: the prior of {init} learnt codes that were imported from another file, or encoded: "
        "whether the same numbers mean the same there cannot be told. Import the file that it learnt, or "
        f"leave --{section}.init out"
    )


def vqvae_origins(run: RunDir, fingerprint: str) -> list[str]:
    """The fingerprint of a VQ-VAE of a run, and those of all that it began from, the latest first."""
    same = (saved for saved in checkpoint.readable(run.stage1) if encodes_as(saved)["vqvae"] == fingerprint)
    return next(map(lineage, same), [fingerprint])


def weights_of(saved: Checkpoint, label_names: Sequence[str], prior: Prior) -> Tensors:
    """The weights of a checkpoint for a prior of the same classes, which may have another order."""
    tensors, there = saved.tensors(saved.weights), saved.meta["codes"]["label_names"]
    rows = [there.index(name) for name in label_names]
    for name in prior.label_tensors() if list(there) != list(label_names) else ():
        table = tensors[name]
        tensors[name] = torch.cat([table[rows], table[len(rows) :]])  # the hidden label is the last
    return tensors


def describe(init: str, saved: Checkpoint, header: Header, origins: Sequence[str], level: int = 0) -> str:
    """Where the prior of a level begins, in words."""
    codes, here = saved.meta["codes"], header.levels[level]
    there = Level(**codes["levels"][level])
    notes = [f"the prior {saved.fingerprint[:12]} of {init}, step {saved.step}"]
    if codes["vqvae"] != origins[0]:
        notes.append(
            f"it learnt codes of the VQ-VAE {codes['vqvae'][:12]}, from which stage one here began before it "
            "went on: its codes have moved since"
        )
    if there.size != here.size:
        notes.append(f"its maps are {there.height}x{there.width}, those here {here.height}x{here.width}")
    if codes["label_names"] != header.label_names:
        notes.append("its classes have another order, and are matched by name")
    return "; ".join(notes)
