"""Training of stage one, from the first batch to the last checkpoint."""

from contextlib import nullcontext
from dataclasses import asdict
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from vqprior.configs import Config
from vqprior.configs.errors import UserError
from vqprior.runtime import checkpoint, pictures
from vqprior.runtime.average import WeightAverage
from vqprior.runtime.checkpoint_writer import Writer
from vqprior.runtime.codes import in_words
from vqprior.runtime.data import DataSet
from vqprior.runtime.evaluating import evaluating
from vqprior.runtime.feed import fed
from vqprior.runtime.graph import recorded
from vqprior.runtime.guard import Guard
from vqprior.runtime.interrupt import Interrupted
from vqprior.runtime.launch import accelerator_for, count_parameters, network_of
from vqprior.runtime.lineage import BEGUN_FROM, begun_from, codes_origin
from vqprior.runtime.loader import batch_positions, image_batches
from vqprior.runtime.optimizer import Scalar, adamw, learning_rate, on_device, set_rate, take_step
from vqprior.runtime.processes import is_main, on_main, say, share_of_process, sum_numbers, sum_together
from vqprior.runtime.progress import Progress, done
from vqprior.runtime.randomness import Stream, generator, seed_of
from vqprior.runtime.run_dir import RunDir
from vqprior.runtime.run_state import RunState
from vqprior.runtime.tracker import Tracker
from vqprior.runtime.transfer import onto

from .adversary import Adversary, refuse_recorded
from .begin import binding, describe, refuse_other_pictures, source_of, take_codes, take_over
from .decoded_codes import log_codebook
from .measure import measure
from .objective import objective, total
from .perceptual_weights import bound, perceptual_of
from .quantizers.training import candidates, encoded, mean_shares, observed, start_quantizers
from .score import CHOSEN, how_chosen, score_of
from .vqvae import VQVAE, find_vqvae

READ = 64  # pictures at once, to find the variance of all

Learnt = tuple[tuple[str, ...], Tensor, Tensor, Tensor, Tensor]
"""Of a step, see `learn`."""


def train(config: Config, run: RunDir, data: DataSet) -> None:
    """Train the VQ-VAE of a run up to `stage1.steps`, from its last checkpoint where there is one.

    Raises:
        UserError: the batch does not divide, the checkpoints do not fit the data or are damaged, or what
            stage1.init names does not fit.
    """
    settings = config.stage1
    share = share_of_process()
    part = share.slice(settings.batch_size, settings.accumulate)
    resumed = on_main(checkpoint.newest, run.stage1, warn=say)
    start = resumed.step if resumed else 0
    if resumed:
        refuse_other_pictures(resumed, data)
    if resumed and start >= settings.steps:
        on_main(checkpoint.refuse_unevaluated, resumed, settings.SECTION, settings.steps)
        say(done("stage 1", start, settings.steps))
        return _tell_best(config, run)
    if resumed and on_main(stays, config, run):
        say(
            f"stage 1: stays at step {start} of {settings.steps}, since the prior has learnt from its codes; "
            "a new run (--out) trains on"
        )
        return _tell_best(config, run)
    refuse_recorded(config)
    source = None if resumed else on_main(source_of, config)
    origins = {BEGUN_FROM: begun_from(resumed, source)}
    if source and settings.steps == 0:
        return take_over(config, run, data, source)
    learns_codes = settings.train == "all"

    # The model and what moves it
    accelerator = accelerator_for(config)
    device = accelerator.device
    perceptual = perceptual_of(config, run, data, device)
    if source and not learns_codes:  # once nothing is refused any more: settings are fixed by what is taken
        on_main(take_codes, config, run, data, source)
    torch.manual_seed(seed_of(config.seed, Stream.STAGE1_WEIGHTS))
    model = VQVAE(config).to(device)
    model.learns(settings.train)
    if source:
        model.load_state_dict(source.tensors(source.weights))
    if not learns_codes:
        origins |= binding(model, resumed, source)
    if perceptual:
        origins |= bound(perceptual, resumed)
    if config.channels_last:
        model.to(memory_format=torch.channels_last)
    average = WeightAverage(model, settings.average) if settings.average else None
    optimizer = adamw(model, weight_decay=settings.weight_decay)
    network, optimizer = accelerator.prepare(network_of(model, config), optimizer)
    adversary = Adversary(config, accelerator) if settings.adversarial else None
    writer = Writer(run.stage1, settings.keep)
    guard = Guard(accelerator, writer, start)
    beside = adversary.beside() if adversary else {}
    state = RunState(accelerator, model, optimizer, average, guard, beside)
    if resumed:
        state.restore(resumed)

    batches = image_batches(
        data.train,
        device,
        seed=config.seed,
        batch_size=settings.batch_size,
        start=start,
        stop=settings.steps,
        part=part,
    )
    likelihood, quantizers, variance = model.likelihood, model.quantizers, data_variance(data)
    moves, pools = learns_codes and quantizers[0].moves, learns_codes and quantizers[0].pools
    if not resumed and not source:
        start_quantizers(model, data, config)
    weighted_terms = partial(
        objective,
        likelihood=likelihood,
        variance=variance,
        beta=settings.beta,
        entropy=settings.lfq.entropy,
        perceptual=settings.perceptual,
        distance=perceptual,
        adversarial=settings.adversarial,
    )

    tracker = Tracker(run.path, "stage1", step=start, active=is_main())
    on_main(tracker.settings, start, config, run.command())
    shown = data.test.images(spread(len(data.test), 32))
    progress = Progress(
        "stage 1", start=start, stop=settings.steps, batch_size=settings.batch_size, active=is_main()
    )
    progress.say(f"stage 1: {count_parameters(model):,} parameters, {len(data.train):,} images, on {device}")
    vectors = f"{quantizers[0].D} numbers each, quantizer {settings.quantizer}"
    progress.say(f"stage 1: {in_words(model.levels)}, of {vectors}")
    for words in settings.idle():
        progress.say(f"stage 1: {words}")
    if source:
        progress.say(f"stage 1: begins from {describe(config, source)}")

    def learn(images: Tensor, drawn: Tensor, rate: Scalar, weight: Scalar) -> Learnt:
        """One step, from pictures [n, C, H, W] uint8 on the device; on CUDA nothing in it is read by the
        host.

        Args:
            drawn: for each code one of its level's vectors that it could be restarted on, [levels, n * K]
                int64, n the codes of a vector.
            rate, weight: of the optimizer, and of the average.

        Returns:
            Names of the losses, these of each pass [passes, losses], the gradient's norm [], the guard's
            verdict, and the restarts of all levels [].
        """
        # Forward and backward, in as many passes as it takes to fit
        set_rate(optimizer, rate)
        losses_in, quantized_in, parts = [], [], images.chunk(settings.accumulate)  # for each pass
        shares = mean_shares(encoded(model, parts, config), share) if pools and len(parts) > 1 else None
        for index, part_of_images in enumerate(parts):
            last = index == settings.accumulate - 1
            with nullcontext() if last else accelerator.no_sync(network):
                x = pictures.to_float(part_of_images, device, channels_last=config.channels_last)
                prediction, quantized = network(x)
                if pools:
                    shares = shares or mean_shares([quantized], share)
                    of_levels = zip(quantizers, quantized, shares, strict=True)
                    quantized = [quantizer.of_step(*of_level) for quantizer, *of_level in of_levels]
                opinion = partial(adversary.opinion, index=index) if adversary and adversary.heard else None
                terms = weighted_terms(x, prediction, quantized if learns_codes else (), opinion=opinion)
                loss = total(terms.values())
                accelerator.backward(loss / settings.accumulate)
                x_hat = likelihood.image(prediction.detach())
            curves = {f"loss/{name}": term for name, term in terms.items()}
            losses = {"loss/total": loss, **curves, "mse": F.mse_loss(x_hat, x)}

            # The adversary, of the same pictures and their reconstructions
            if adversary:
                losses |= adversary.learn(x, x_hat, index)
            losses_in.append(torch.stack([value.detach() for value in losses.values()]))
            quantized_in.append(quantized)

        # What all processes must know, in one sum
        names, stacked = tuple(losses), torch.stack(losses_in)
        of_levels = zip(quantizers, zip(*quantized_in, strict=True), drawn, strict=True)
        seen = [observed(*of_level, share) for of_level in of_levels] if learns_codes else []
        *seen, reports = sum_together(*seen, guard.report(stacked))

        # Step: the weights, then what moves in the quantizer, then the average; all on sound numbers only
        norm = guard.clip(model, reports, settings.clip_norm)
        of_both = norm + adversary.clip(guard, reports) if adversary else norm
        verdict = guard.judge(reports, of_both)
        sound, unread = guard.decide(verdict)
        restarted = torch.zeros((), dtype=torch.int64, device=device)
        if sound or accelerator.scaler:  # fp16's scaler skips an overflow by itself
            take_step(optimizer, unread)
        if sound and learns_codes:
            pairs = zip(quantizers, seen, strict=True)
            restarted = total(quantizer.update(of_level, unread) for quantizer, of_level in pairs)
        if sound and average:
            average.update(weight, unread)
        if sound and adversary:
            adversary.move(unread)
        optimizer.zero_grad()
        return names, stacked, norm, verdict, restarted

    take = recorded(learn, config, accelerator)
    for step, batch in enumerate(fed(batches, device), start + 1):
        rate = learning_rate(
            step - 1, peak=settings.learning_rate, warmup=settings.warmup, steps=settings.steps
        )
        drawn = candidates(model, settings.batch_size, generator(config.seed, Stream.RESTARTS, step))
        numbers = on_device(device, rate, average.weight(step) if average else 0.0)
        if adversary:
            adversary.begin(step, batch_positions(step - 1, settings.batch_size, part))
        names, losses, norm, verdict, restarted = take(batch.images, onto(drawn, device), *numbers)
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
            means = [value / share.processes for value in sum_numbers(losses.mean(0).tolist())]
            values = dict(zip(names, means, strict=True)) | {
                "rates/learning_rate": rate,
                "rates/gradient_norm": float(norm),
                "rates/skipped_steps": guard.skipped,
                "speed/images_per_second": progress.images_per_second(),
            }
            if moves:
                values["codes/restarted"] = float(restarted)
            if adversary:
                values["adversary/gradient_norm"] = float(adversary.norm)
            tracker.scalars(step, values)
            shown_beside = {"loss": "loss/total", "mse": "mse", "img/s": "speed/images_per_second"}
            progress.show({word: values[name] for word, name in shown_beside.items()})

        # Once in a while: evaluate
        score = None
        if step % settings.eval_every == 0 or last:
            with average.applied() if average else nullcontext():
                measured = measure(
                    model,
                    data.validation,
                    batch=config.inference_batch,
                    precision=config.precision,
                    channels_last=config.channels_last,
                    perceptual=perceptual,
                )
                score = score_of(settings, measured, likelihood.unit(variance), step)
                tracker.scalars(step, measured.curves(), "validation")
                for level, carried in enumerate(measured.levels):
                    name = f"codes/use{f'_{level}' if len(measured.levels) > 1 else ''}"
                    tracker.histogram(step, name, torch.log10(carried.counts.clamp(min=0.5).float()))
                if is_main():
                    tracker.picture(step, "reconstructions", reconstruct(model, shown, config))
                    log_codebook(tracker, step, model, measured.levels)
            bits = measured.decoder_bits_per_dim
            progress.say(
                f"step {step}: validation {'' if bits is None else f'{bits:.3f} bits/dim of the decoder, '}"
                f"mse {measured.mse:.5f}, psnr {measured.psnr:.2f} dB, {measured.use_in_words()}"
            )

        # Once in a while: checkpoint
        if saving:
            on_main(tracker.flush)
            meta = {
                "stage": "stage1",
                "config": asdict(config),
                "data_fingerprint": data.fingerprint,
                CHOSEN: how_chosen(settings),
                **origins,
                **state.meta(),
            }
            writer.save(step, state.tensors(), meta, score)
        if signal:
            break
    writer.finish()
    progress.close()
    tracker.close()
    if step < settings.steps:
        say(f"stage 1: stopped after step {step} as told, with a checkpoint; the same command goes on")
        raise Interrupted(signal)
    _tell_best(config, run)


def stays(config: Config, run: RunDir) -> bool:
    """Whether stage one learns no more, since a prior has begun to learn the codes of a checkpoint that is
    whole; a damaged one is trained anew."""
    moving = config.stage1.train == "all"
    origin = codes_origin(run) if moving and run.begun_priors() else None
    if origin is None:
        return False
    try:
        find_vqvae(run.stage1, origin["vqvae"], warn=lambda _: None)  # what is damaged has been named
    except UserError:
        return False
    return True


def _tell_best(config: Config, run: RunDir) -> None:
    """Say which checkpoint all that comes after uses."""
    best = on_main(lambda: checkpoint.best_of(checkpoint.readable(run.stage1)))
    say(f"stage 1: {best.path} is used, chosen {how_chosen(config.stage1)}")


def spread(items: int, count: int) -> Tensor:
    """Up to `count` of the indices 0 to items-1, [n] int64, spread evenly."""
    return torch.linspace(0, items - 1, min(count, items), dtype=torch.float64).long()


def data_variance(data: DataSet) -> float:
    """Variance of the sub-pixels, in [0, 1], of up to 4096 training images, spread evenly; exact whatever the
    chunks that they are read in."""
    count = total = squares = 0
    for indices in spread(len(data.train), 4096).split(READ):
        values = data.train.images(indices).long()
        count, total = count + values.numel(), total + int(values.sum())
        squares += int(values.square_().sum())
    return max((count * squares - total**2) / (count * (count - 1) * 255**2), 1e-6)


@torch.no_grad()
def reconstruct(model: VQVAE, images: Tensor, config: Config) -> Tensor:
    """Images [N, C, H, W] uint8 above their reconstructions, as one picture."""
    x = pictures.to_float(images, model.device, channels_last=config.channels_last)
    with evaluating(model):
        x_hat = pictures.to_uint8(model.likelihood.image(model(x).prediction))
    return pictures.beneath(images, x_hat)
