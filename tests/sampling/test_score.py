"""How unusual pictures are: bits by place against the plain likelihood, restorations, and that what was never
learnt is found."""

import csv
import shlex
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import TINY, colour
from tests.launch import run_processes
from tests.sampling.tiny import tiny_generator
from vqprior import Generator
from vqprior.cli import main
from vqprior.configs.errors import UserError
from vqprior.runtime import lock
from vqprior.runtime.codes import Level
from vqprior.sampling import score_pictures
from vqprior.sampling.score import Usual, bits_by_place, heat


def noise(count: int, size: tuple[int, int] = (16, 20), channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *size, channels), dtype=np.uint8)


def auroc(usual: np.ndarray, unlike: np.ndarray) -> float:
    """Share of pairs in which what is unlike has the larger figure."""
    return (unlike[:, None] > usual).mean() + (unlike[:, None] == usual).mean() / 2


@pytest.mark.parametrize("label", [None, "b"])
@pytest.mark.parametrize("label_dropout", [0.0, 0.1])
def test_bits_are_those_of_the_likelihood(label, label_dropout):
    generator, images = tiny_generator(label_dropout=label_dropout), noise(5)
    found = generator.score(images, generator.usual(label, pictures=noise(3)), restorations=1)
    if label is None:  # the mixture of the classes, equally likely
        log2 = np.stack([generator.log2_prob(images, name) for name in "abc"])
        expected = -np.log2(np.exp2(log2).mean(0))
    else:
        expected = -generator.log2_prob(images, label)
    np.testing.assert_allclose(found.bits, expected, rtol=1e-5)
    np.testing.assert_allclose(found.places.sum((1, 2)), found.bits, rtol=1e-5)
    np.testing.assert_allclose(found.heat.sum((1, 2)), found.bits, rtol=1e-5)


def test_bits_of_a_place_know_no_later_code():
    networks = tiny_generator(label_dropout=0).networks
    codes = torch.randint(7, (2, 4, 5))
    bits, _ = bits_by_place(networks, (codes,), None, "no")
    changed = codes.clone()
    changed[:, 2, 3] = (changed[:, 2, 3] + 1) % 7
    others, _ = bits_by_place(networks, (changed,), None, "no")
    assert torch.allclose(bits[:, :13], others[:, :13]) and not torch.allclose(bits[:, 13], others[:, 13])


def test_what_is_kept_is_kept_and_each_picture_is_scored_alone():
    generator, images = tiny_generator(), noise(5)
    usual = generator.usual(pictures=noise(40))
    whole = generator.score(images, usual, quantile=0.6, restorations=3, batch_size=2)
    codes = generator.encode(images)
    kept = ~np.broadcast_to(whole.redrawn[:, None], whole.restored.shape)
    assert np.array_equal(whole.restored[kept], np.broadcast_to(codes[:, None], whole.restored.shape)[kept])
    assert (whole.restored != codes[:, None]).any() and 0.2 < whole.redrawn.mean() < 0.6
    assert np.array_equal(whole.restorations[1], generator.decode(whole.restored[1]))
    assert np.array_equal(whole.redrawn, whole.places > usual.limits(0.6).numpy().reshape(4, 5))
    assert len(np.unique(whole.restored[0], axis=0)) > 1  # the restorations of a picture differ
    alone = generator.score(images[3:4], usual, quantile=0.6, restorations=3)
    for name, of_all, of_one in zip(whole._fields, whole, alone, strict=True):
        np.testing.assert_allclose(of_all[3:4], of_one, rtol=1e-4, atol=1e-6, err_msg=name)
    squared = ((images[:, None] / 255.0 - whole.restorations / 255.0) ** 2).mean((1, 4))
    np.testing.assert_allclose(whole.differences, squared, atol=1e-5)


def test_the_quantile_is_a_share_of_the_usual():
    usual = Usual(np.array([[1, 1], [2, 2], [3, 3], [4, 4]], dtype=np.float32), None)
    assert usual.quantile_of(np.array([1.0, 4.0, 5.0, 99.0])).tolist() == [0, 0.5, 0.5, 1]
    assert usual.limits(0.5).tolist() == pytest.approx([2.5, 2.5], abs=2e-3)


def test_heat_has_the_bits_where_the_codes_are():
    coarse, fine = Level(8, 1, 1), Level(8, 2, 4, codes_per_position=2)
    bits = torch.tensor([[8.0, 1, 2, 0, 0, 0, 0, 0, 5]])
    found = heat(bits, (coarse, fine), (4, 4))
    assert found.shape == (1, 4, 4) and found.sum() == 16
    assert found[0, 0, 0] == 0.5 + 3 / 4 and found[0, 3, 3] == 0.5 + 5 / 4 and found[0, 3, 0] == 0.5


def test_mistakes_of_calls_are_answered():
    generator = tiny_generator()
    with pytest.raises(UserError, match="of no run"):
        generator.score(noise(2))
    usual = generator.usual(pictures=noise(2))
    with pytest.raises(UserError, match="quantile is"):
        generator.score(noise(2), usual, quantile=1.5)
    with pytest.raises(UserError, match="there is no class"):
        generator.usual("d")


def test_a_run_is_found_from_another_folder_than_it_was_loaded_in(finished_run, tmp_path, monkeypatch):
    """Its validation pictures had been said to be missing."""
    monkeypatch.chdir(finished_run.parent)
    generator = Generator.from_run(finished_run.name)
    expected = generator.usual()
    monkeypatch.chdir(tmp_path)
    np.testing.assert_array_equal(generator.usual().bits, expected.bits)


def test_what_is_usual_in_another_run_is_refused():
    generator = tiny_generator(classes=2)
    others = {
        "of pictures of 25 codes, and those of this one have 20": tiny_generator(size=(20, 20)),
        "of class number 2, and this one has 2 classes": tiny_generator(),
    }
    for words, other in others.items():
        of_other = other.usual(2, pictures=noise(2, other.networks.vqvae.image_size))
        with pytest.raises(UserError, match=words):
            generator.score(noise(2), of_other)


@pytest.fixture
def photos(tmp_path):
    root = tmp_path / "photos"
    (root / "deep").mkdir(parents=True)
    for index in range(7):
        colour(100 + index, height=9 + index, width=23 - index).save(root / "deep" / f"{index}.png")
    return root


@pytest.fixture
def score(finished_run, command, photos, tmp_path):
    """`vqprior score RUN --pictures photos --out out`: exit code and what was printed."""

    def call(*flags: object, run=finished_run) -> tuple[int, str]:
        given = ("--pictures", photos, "--out", tmp_path / "out", "--batch_size", 4, *flags)
        return command("score", run, *given)

    return call


def table(out) -> list[dict[str, str]]:
    with open(out / "scores.csv", newline="") as file:
        return [*csv.DictReader(file)]


def files(out) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_files_say_what_the_call_says(score, finished_run, tmp_path):
    code, printed = score("--quantile", 0.5)
    assert code == 0 and "score: 7 pictures" in printed, printed
    out, rows = tmp_path / "out", table(tmp_path / "out")
    assert sorted(row["name"] for row in rows) == [f"deep/{index}.png" for index in range(7)]
    with np.load(out / "scores.npz", allow_pickle=False) as archive:
        arrays = dict(archive)
    generator = Generator.from_run(finished_run)
    images = np.stack([np.asarray(Image.open(out / "pictures" / f"{row['number']:0>6}.png")) for row in rows])
    assert images.shape[2] == 7 * 98 + 2  # picture, heat, four restorations, difference
    pictures = images[:, 2:98:12, 2:98:12]
    found = generator.score(pictures, quantile=0.5)
    for name in ("bits", "quantile", "places", "redrawn", "restored", "differences", "difference"):
        np.testing.assert_allclose(arrays[name], getattr(found, name), rtol=1e-5, atol=1e-7, err_msg=name)
    assert np.array_equal(images[:, 2:98:12, 198:294:12], found.restorations[:, 0])
    np.testing.assert_allclose([float(row["bits"]) for row in rows], found.bits, rtol=1e-5)
    assert [int(row["codes_redrawn"]) for row in rows] == found.redrawn.sum((1, 2)).tolist()
    assert len(arrays["usual"]) == 2 and (arrays["places"] > arrays["limits"])[arrays["redrawn"]].all()
    rows_shown = Image.open(out / "unusual.png").height // images.shape[1]
    assert rows_shown == 7 and not (out / ".unfinished").exists()
    before = files(out)
    code, printed = score("--quantile", 0.5)
    assert code == 0 and "score: done" in printed and files(out) == before


@pytest.mark.parametrize(("share", "words"), [(0.995, "99.5%"), (0.5, "50%")])
def test_the_share_is_said_as_it_was_given(score, tmp_path, monkeypatch, share, words):
    """99.5 % is not all of them, and pictures that cost as much as that share are counted."""
    ranks = lambda self, bits: np.arange(len(bits)) % 3 / 2  # of two pictures: above none, one and both
    monkeypatch.setattr(Usual, "quantile_of", ranks)
    code, printed = score("--quantile", share)
    dearest = sum(float(row["quantile"]) >= share for row in table(tmp_path / "out"))
    assert code == 0 and dearest > 0
    assert f"; {dearest} cost at least as much as {words} of 2 validation pictures." in printed, printed


def test_several_processes_write_the_same(score, finished_run, photos, tmp_path):
    assert score()[0] == 0
    words = ["score", finished_run, "--pictures", photos, "--out", tmp_path / "two", "--batch_size", 4]
    done = run_processes(words, processes=2)
    assert done.returncode == 0, done.stderr
    assert files(tmp_path / "two") == files(tmp_path / "out")


def test_a_killed_call_goes_on(score, tmp_path, monkeypatch):
    assert score()[0] == 0
    whole = files(tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    real, written = score_pictures.write_array, []

    def dies(file, array):
        if len(written) == 2:  # what is usual, and the first chunk of pictures
            raise KeyboardInterrupt
        written.append(file)
        real(file, array)

    monkeypatch.setattr(score_pictures, "write_array", dies)
    assert score()[0] == 130 and not (tmp_path / "out" / "scores.csv").exists()
    written.clear()
    monkeypatch.setattr(score_pictures, "write_array", lambda *given: (written.append(given), real(*given)))
    assert score()[0] == 0 and len(written) == 1 and files(tmp_path / "out") == whole


def test_mistakes_are_answered(score, photos, finished_run, tmp_path):
    (photos / "bad.png").write_bytes(b"no picture")
    code, printed = score()
    assert code == 2 and "bad.png cannot be read" in printed
    code, printed = score("--on_error", "skip", "--label", "ant")
    assert code == 0 and "1 picture left out that could not be read" in printed, printed
    assert len(table(tmp_path / "out")) == 7
    assert (tmp_path / "out" / "skipped.txt").is_file()
    for flags, words in (
        (["--label", "cat"], "there is no class 'cat'"),
        (["--quantile", 2], "quantile is 2"),
        (["--restorations", 0], "restorations is 0"),
    ):
        code, printed = score(*flags)
        assert code == 2 and words in printed, printed
    assert score("--on_error", "skip", "--out", photos / "scores")[0] == 0
    assert score("--on_error", "skip", "--seed", 2)[0] == 0
    assert len(table(tmp_path / "out")) == 7  # what it wrote among the pictures is none of them
    shutil.copytree(finished_run, tmp_path / "bare", ignore=shutil.ignore_patterns("codes"))
    code, printed = score("--seed", 1, run=tmp_path / "bare")
    assert code == 2 and "keeps no codes of the pictures" in printed, printed
    program, *words = shlex.split(printed.strip().rpartition("with those pictures: ")[2])
    assert program == "vqprior" and main(words) == 0  # as it is printed
    lock.release_all()
    assert score("--seed", 1, "--on_error", "skip", run=tmp_path / "bare")[0] == 0


def stripes(seed: int, *, upright: bool = False) -> np.ndarray:
    """A picture [24, 24] of stripes, level or upright, of some phase and strength."""
    rng = np.random.default_rng(seed)
    wave = np.sin(np.arange(24) * np.pi / 4 + rng.integers(4) * np.pi / 2)
    picture = np.broadcast_to(wave[:, None], (24, 24)) * rng.uniform(0.8, 1)
    return np.round(127 + 127 * (picture.T if upright else picture)).astype(np.uint8)


@pytest.fixture(scope="module")
def run_of_stripes(tmp_path_factory):
    """A run that learnt level stripes alone."""
    root = tmp_path_factory.mktemp("stripes")
    (root / "level").mkdir()
    for index in range(200):
        Image.fromarray(stripes(index)).save(root / "level" / f"{index}.png")
    size = ["--data.size", "24", "24", "--data.channels", "1", "--data.labels", "False"]
    learnt = ["--stage1.steps", "400", "--stage1.eval_every", "200", "--stage1.save_every", "200"]
    learnt += ["--stage2.steps", "300", "--stage2.eval_every", "100", "--stage2.save_every", "100"]
    rates = [
        "--stage1.learning_rate",
        "3e-3",
        "--stage2.learning_rate",
        "1e-2",
        "--stage2.label_dropout",
        "0.1",
    ]
    place = ["--data.root", str(root / "level"), "--out", str(root / "run")]
    for step in ("train-vqvae", "encode", "train-prior"):
        assert main([step, "folder", *TINY, *size, *learnt, *rates, *place]) == 0
        lock.release_all()
    return root / "run"


@pytest.mark.slow
def test_what_was_never_learnt_is_found(run_of_stripes):
    known = np.stack([stripes(index) for index in range(1000, 1060)])[..., None]
    unlike = np.stack([stripes(index, upright=True) for index in range(2000, 2060)])[..., None]
    pasted, inside = known.copy(), np.zeros((24, 24), dtype=bool)
    inside[8:16, 8:16] = True
    pasted[:, inside] = unlike[:, inside]
    generator = Generator.from_run(run_of_stripes)
    usual = generator.usual()
    of_known, of_unlike, of_pasted = (generator.score(them, usual) for them in (known, unlike, pasted))
    assert auroc(of_known.bits, of_unlike.bits) > 0.9
    assert auroc(of_known.bits, of_pasted.bits) > 0.75
    assert auroc(of_known.difference, of_pasted.difference) > 0.9
    assert abs(of_known.quantile.mean() - 0.5) < 0.2 and of_unlike.quantile.mean() > 0.9
    warm = of_pasted.heat.mean(0)
    assert inside.flat[warm.argmax()] and warm[inside].mean() > 1.2 * warm[~inside].mean()
    changed = of_pasted.differences[:, inside].mean(1) > of_pasted.differences[:, ~inside].mean(1)
    assert changed.mean() > 0.9
    assert of_pasted.redrawn[:, 2:4, 2:4].mean() > 2 * of_known.redrawn.mean()


def test_restorations_of_padding_are_not_drawn(monkeypatch):
    """One picture with the batch of many."""
    generator, asked = tiny_generator(), []
    real = generator.networks.codes
    monkeypatch.setattr(
        generator.networks, "codes", lambda numbers, *rest: asked.append(len(numbers)) or real(numbers, *rest)
    )
    usual = generator.usual(pictures=noise(8))
    assert len(generator.score(noise(1), usual, quantile=0.5, restorations=3, batch_size=16).bits) == 1
    assert asked == [3]
