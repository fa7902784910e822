"""Training of stage two, from the first batch to the last checkpoint; the same skeleton as stage one's."""

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from vqprior import configs
from vqprior.configs import Config
from vqprior.configs.errors import UserError
from vqprior.runtime import checkpoint
from vqprior.runtime.average import WeightAverage
from vqprior.runtime.checkpoint import Checkpoint
from vqprior.runtime.checkpoint_writer import Writer
from vqprior.runtime.code_maps import CodeMaps
from vqprior.runtime.feed import fed
from vqprior.runtime.graph import recorded
from vqprior.runtime.guard import Guard
from vqprior.runtime.interrupt import Interrupted
from vqprior.runtime.launch import accelerator_for, count_parameters, network_of
from vqprior.runtime.lineage import BEGUN_FROM, begun_from
from vqprior.runtime.loader import CodeBatch, code_batches
from vqprior.runtime.optimizer import Scalar, adamw, learning_rate, on_device, set_rate, take_step
from vqprior.runtime.processes import is_main, on_main, say, share_of_process, sum_numbers, sum_together
from vqprior.runtime.progress import Progress, done
from vqprior.runtime.randomness import Stream, hash64, seed_of, uniform
from vqprior.runtime.run_dir import OF_ALL, RunDir
from vqprior.runtime.run_state import RunState
from vqprior.runtime.tracker import Tracker

from .begin import describe, source_of, vqvae_origins, weights_of
from .measure import bits_by_place, bits_per_code
from .prior import Prior
from .priors import build

LN2 = math.log(2)
Preview = Callable[[Prior, int], Tensor]
"""Draws a picture [H, W, C] uint8 of samples from a prior at a step; the top layer hands it in."""


def train(config: Config, run: RunDir, preview: Preview | None = None, *, level: int = 0) -> None:
    """Train the prior of a level of codes up to its `steps`, from its last checkpoint where there is one.

    Args:
        level: 0 for the coarsest. A finer one is told the true codes of those above it, so that the levels
            can be trained in any order.

    Raises:
        UserError: there are no code maps, the batch does not divide, the checkpoints were trained on other
            codes, or what stage2.init names does not fit.
    """
    settings, folder = config.stage2_of(level), run.stage2_of(level)
    share = share_of_process()
    part = share.slice(settings.batch_size, settings.accumulate)
    maps = CodeMaps(run.codes)
    name = f"stage 2, level {level}" if len(maps.header.levels) > 1 else "stage 2"
    resumed = on_main(checkpoint.newest, folder, warn=say)
    start = resumed.step if resumed else 0
    if resumed and (old := resumed.meta["codes"]) != maps.header.origin():
        changed = [name for name, value in maps.header.origin().items() if old.get(name) != value]
        raise UserError(
            f"{resumed.path} was trained on codes of the VQ-VAE {old['vqvae'][:12]}, but {run.codes} holds "
            f"codes of {maps.header.vqvae[:12]} (they differ in {', '.join(changed)}). Delete {folder} to "
            "train on these, or put the old codes back"
        )
    if start >= settings.steps:
        on_main(checkpoint.refuse_unevaluated, resumed, settings.SECTION, settings.steps)
        say(done(name, start, settings.steps))
        return _tell_best(name, folder)
    if resumed:
        _refuse_other_settings(resumed, config, run, settings.SECTION)
    label_names = maps.header.label_names
    vqvaes = on_main(vqvae_origins, run, maps.header.vqvae)
    source = None if resumed else on_main(source_of, config, label_names, vqvaes, level)
    origins = begun_from(resumed, source)

    # The model and what moves it
    accelerator = accelerator_for(config)
    device = accelerator.device
    train_codes, validation = (maps.split(split).down_to(level) for split in ("train", "validation"))
    torch.manual_seed(seed_of(config.seed, Stream.STAGE2_WEIGHTS))
    model = build(settings, maps.header.levels[: level + 1], len(label_names)).to(device)
    if source:
        model.load_state_dict(weights_of(source, label_names, model))
    if config.channels_last:
        model.to(memory_format=torch.channels_last)
    average = WeightAverage(model, settings.average) if settings.average else None
    optimizer = adamw(model, weight_decay=settings.weight_decay)
    network, optimizer = accelerator.prepare(network_of(model, config), optimizer)
    writer = Writer(folder, settings.keep)
    guard = Guard(accelerator, writer, start)
    state = RunState(accelerator, model, optimizer, average, guard)
    if resumed:
        state.restore(resumed)

    batches = code_batches(
        train_codes,
        device,
        seed=config.seed,
        batch_size=settings.batch_size,
        start=start,
        stop=settings.steps,
        part=part,
    )

    def prepared(batch: CodeBatch) -> tuple[Tensor | None, ...]:
        """Labels some of which are hidden, what dropout is drawn from, and the codes of each level.

        All are functions of the places in the order of the run, like the batch itself.
        """
        codes, labels, positions = batch
        if labels is not None and model.null_label is not None:
            hidden = uniform(hash64(config.seed, Stream.HIDDEN_LABELS, positions)) < settings.label_dropout
            labels = labels.masked_fill(hidden, model.null_label)
        return labels, model.dropout_keys(config.seed, positions), *codes

    tracker = Tracker(run.path, folder.name, step=start, active=is_main())
    on_main(tracker.settings, start, config, run.command())
    by_place = cache(lambda: bits_by_place(train_codes, validation, model.level))  # at the first evaluation
    progress = Progress(
        name, start=start, stop=settings.steps, batch_size=settings.batch_size, active=is_main()
    )
    progress.say(
        f"{name}: {count_parameters(model):,} parameters, {len(train_codes):,} code maps of "
        f"{model.level}, on {device}"
    )
    if idle := settings.idle():
        progress.say(
            f"{name}: {settings.SECTION}.prior is {settings.prior}, which heeds no {', '.join(idle)}"
        )
    if source:
        begins = describe(settings.init, source, maps.header, vqvaes, level)
        progress.say(f"{name}: begins from {begins}")

    def learn(
        labels: Tensor | None,
        keys: Tensor | None,
        rate: Scalar,
        weight: Scalar,
        *codes: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One step, from what lies on the device; on CUDA nothing in it is read by the host.

        Args:
            labels: [n] of the maps.
            keys: what dropout is drawn from, [n, ...].
            rate, weight: of the optimizer, and of the average.
            codes: maps [n, h, w] of the levels down to this one.

        Returns:
            The loss of each pass [passes], in nats a code, the gradient's norm [], and the guard's verdict.
        """
        # Forward and backward, in as many passes as it takes to fit
        set_rate(optimizer, rate)
        passes = settings.accumulate
        parts = [[None] * passes if t is None else t.chunk(passes) for t in (labels, keys, *codes)]
        terms = []
        for index, (part_of_labels, drawn, *above, own) in enumerate(zip(*parts, strict=True)):
            last = index == settings.accumulate - 1
            with nullcontext() if last else accelerator.no_sync(network):
                # One row a code: the kernel for maps has no deterministic form on CUDA
                logits = network(own, part_of_labels, tuple(above), model.dropout(drawn))
                rows = rearrange(logits, "b k h w -> (b h w) k")
                loss = F.cross_entropy(rows, own.flatten())  # nats a code
                accelerator.backward(loss / settings.accumulate)
            terms.append(loss.detach())

        # Step: the weights, then the average; all of it on sound numbers only, as all processes agree
        losses = torch.stack(terms)
        (reports,) = sum_together(guard.report(losses))
        norm = guard.clip(model, reports, settings.clip_norm)
        verdict = guard.judge(reports, norm)
        sound, unread = guard.decide(verdict)
        if sound or accelerator.scaler:  # fp16's scaler skips an overflow by itself
            take_step(optimizer, unread)
        if sound and average:
            average.update(weight, unread)
        optimizer.zero_grad()
        return losses, norm, verdict

    take = recorded(learn, config, accelerator)
    for step, batch in enumerate(fed(map(prepared, batches), device), start + 1):
        rate = learning_rate(
            step - 1, peak=settings.learning_rate, warmup=settings.warmup, steps=settings.steps
        )
        numbers = on_device(device, rate, average.weight(step) if average else 0.0)
        labels, keys, *codes = batch
        terms, norm, verdict = take(labels, keys, *numbers, *codes)
        guard.note(verdict)
        progress.advance()

        # Once in a while what is on the device is read; else the signal to stop of the step before
        last = step == settings.steps
        logging, saving = step % settings.log_every == 0 or last, step % settings.save_every == 0 or last
        signal = guard.heed(everything=logging or saving)
        if signal and not saving:
            signal, saving = max(signal, guard.heed(everything=True)), True

        # Once in a while: log
        if logging:
            nats = sum_numbers([terms.mean().item()])[0] / share.processes
            values = {
                "loss/bits_per_code": nats / LN2,
                "rates/learning_rate": rate,
                "rates/gradient_norm": float(norm),
                "rates/skipped_steps": guard.skipped,
                "speed/images_per_second": progress.images_per_second(),
            }
            tracker.scalars(step, values)
            progress.show({"bits/code": nats / LN2, "img/s": values["speed/images_per_second"]})

        # Once in a while: evaluate, on held-out codes and on as many training codes, without dropout
        score = None
        if step % settings.eval_every == 0 or last:
            with average.applied() if average else nullcontext():
                options = dict(
                    batch=config.inference_batch, precision=config.precision, images=len(validation)
                )
                score = bits_per_code(model, validation, **options)
                seen = bits_per_code(model, train_codes, **options)
                tracker.scalars(step, {"bits_per_code": seen})
                tracker.scalars(step, {"bits_per_code": score}, "validation")
                if is_main():
                    tracker.scalars(step, {"bits_per_code": by_place()}, "by_place")
                if preview and is_main():
                    tracker.picture(step, "samples", preview(model, step))
            progress.say(f"step {step}: validation {score:.4f} bits/code, train {seen:.4f}")

        # Once in a while: checkpoint
        if saving:
            on_main(tracker.flush)
            meta = {
                "stage": "stage2",
                "level": level,
                "config": asdict(config),
                "codes": maps.header.origin(),
                BEGUN_FROM: origins,
                **state.meta(),
            }
            writer.save(step, state.tensors(), meta, score)
        if signal:
            break
    writer.finish()
    progress.close()
    tracker.close()
    if step < settings.steps:
        say(f"{name}: stopped after step {step} as told, with a checkpoint; the same command goes on")
        raise Interrupted(signal)
    _tell_best(name, folder)


def _tell_best(name: str, folder: Path) -> None:
    """Say which checkpoint all that comes after uses."""
    best = on_main(lambda: checkpoint.best_of(checkpoint.readable(folder)))
    say(f"{name}: {best.path} is used, of {best.score:.4f} bits/code on the validation split")


def _refuse_other_settings(resumed: Checkpoint, config: Config, run: RunDir, section: str) -> None:
    """Refuse, with a UserError, to go on with a prior under other settings than it began with: it may have
    been trained in another copy of the run."""
    there = configs.from_tree(resumed.meta["config"])
    changed = configs.differences(there, config, f"{OF_ALL}|{section}")
    if changed:
        raise UserError(
            f"{resumed.path} was trained with other settings than {run.config_file} has: "
            f"{'; '.join(changed)}. Write them there as they were, or delete {resumed.path.parent} to train "
            "it anew"
        )
