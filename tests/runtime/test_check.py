"""`vqprior check`: what stops training, what is odd, and settings to begin with."""

import os
import re
import shlex
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import TINY, colour, write_pictures
from vqprior import configs
from vqprior.configs import Config
from vqprior.configs.commands import Check
from vqprior.configs.schema import Data
from vqprior.runtime.data import check as checking
from vqprior.runtime.data import split
from vqprior.runtime.data.suggestion import LONGEST, WORTH_TWO, _maps, write_preset
from vqprior.runtime.run_dir import RunDir

TINY_GREY = ["folder", *TINY, "--data.channels", 1]
FLAGS = ["folder", "--data.size", 8, 8, "--data.validation", 0.2, "--data.test", 0.2]


@pytest.fixture
def check(command, pictures, tmp_path):
    """Check the pictures; (exit code, what was printed)."""

    def call(*flags: object) -> tuple[int, str]:
        out = ["--data.root", pictures, "--out", tmp_path / "run", *flags]
        return command("check", *FLAGS, *out)

    return call


def test_sound_pictures_may_be_trained_on_and_the_suggested_preset_runs(check, command, tmp_path):
    code, printed = check("--write", tmp_path / "mine.yaml", "--sheet", tmp_path / "sheet.png")
    assert code == 0 and "training may begin" in printed and "ant (12), bee (12)" in printed, printed
    width, height = Image.open(tmp_path / "sheet.png").size
    assert width > height > 16  # two classes in eight columns, and no more cells than pictures
    preset = configs.parse(tmp_path / "mine.yaml", [])
    assert preset.data.size == (8, 8) and preset.data.channels == 3 and preset.stage1.factor == 4
    few = ["--stage1.steps", 1, "--stage2.steps", 1, "--data.validation", 0.2, "--data.test", 0.2]
    few += ["--sample.images", 2]
    code, printed = command("run", tmp_path / "mine.yaml", *few, "--precision", "no", "--out", tmp_path / "r")
    assert code == 0, printed
    code, printed = check("--write", tmp_path / "mine.yaml")
    assert code == 2 and "is there already" in printed


def test_all_that_cannot_be_read_is_named_and_stops(check, pictures):
    whole = (pictures / "ant" / "picture0.png").read_bytes()
    (pictures / "ant" / "picture0.png").write_bytes(whole[: len(whole) // 2])
    (pictures / "bee" / "picture1.png").write_bytes(b"no picture")
    code, printed = check()
    assert code == 2 and "2 pictures cannot be read" in printed
    assert printed.count("picture0.png") == printed.count("picture1.png") == 1
    assert "training cannot begin" in printed
    assert check("--data.on_error", "skip")[0] == 0


def test_what_is_odd_is_said_and_stops_nothing(check, pictures, tmp_path):
    shutil.copy(pictures / "ant" / "picture0.png", pictures / "bee" / "again.png")
    Image.fromarray(np.zeros((12, 10, 3), dtype=np.uint8)).save(pictures / "ant" / "black.png")
    colour(3, 5, 5).save(pictures / "ant" / "tiny.png")
    code, printed = check()
    assert code == 0, printed
    for words in (
        "more than once",
        "(1 of them in several classes)",
        "again.png",
        "1 picture of one colour",
        "black.png",
        "tiny.png (5x5)",
    ):
        assert words in printed, printed
    assert "classes with fewer than 20 training pictures: ant" in printed
    assert "to learn from all as one: --data.labels False" in printed


def test_pictures_that_are_nearly_black_are_said_to_be(check, pictures):
    for path in pictures.rglob("*.png"):
        Image.open(path).point(lambda value: value >> 4).save(path)
    code, printed = check()
    assert code == 0 and "no picture has a pixel above 15 of 255" in printed, printed


def test_pictures_are_small_beside_the_size_that_is_suggested(command, pictures, tmp_path):
    """Those of 12x10 pixels are not to be enlarged to the 64 of a setting that nobody typed."""
    flags = ["folder", *FLAGS[4:], "--data.root", pictures, "--out", tmp_path / "run"]
    assert "to be enlarged" not in command("check", *flags)[1]
    assert "24 pictures smaller than 16x16" in command("check", *flags, "--data.size", 16, 16)[1]


def test_for_few_pictures_it_says_what_to_type_that_works(command, tmp_path):
    for count in (1, 3, 10):
        root = write_pictures(tmp_path / str(count), count, ())
        flags = ["check", "folder", "--data.root", root, "--out", tmp_path / "run"]
        code, printed = command(*flags)
        said = re.search("--data.validation [0-9.]+ --data.test [0-9.]+", printed)
        assert code == 2 and bool(said) == (count > 1), printed
        assert command(*flags, *said[0].split())[0] == 0 if said else "of 1 picture none" in printed


def test_classes_with_names_that_look_alike_are_named(check, pictures):
    for name in ("Bee", "caf\u00e9", "cafe\u0301"):
        write_pictures(pictures, 6, (name,))
    code, printed = check()
    assert code == 0 and "'Bee' = 'bee'" in printed and "'cafe\u0301' = 'caf\u00e9'" in printed, printed


def test_each_picture_is_decoded_once_and_those_on_the_sheet_again(check, monkeypatch):
    decoded = []
    real = split.decode
    monkeypatch.setattr(split, "decode", lambda *of, **how: decoded.append(of[1]) or real(*of, **how))
    monkeypatch.setattr(checking, "SHEET", 2)
    assert check()[0] == 0
    assert len(set(decoded)) == 24 and len(decoded) == 24 + 2


def test_the_sheet_shows_no_picture_twice_and_says_how_many_it_shows(check, pictures, tmp_path):
    for path in sorted((pictures / "ant").iterdir())[6:]:
        path.unlink()
    code, printed = check("--sheet", tmp_path / "sheet.png", "--data.validation", 0.1, "--data.test", 0.1)
    assert code == 0 and "ant (6), bee (12)" in printed, printed
    cells = np.asarray(Image.open(tmp_path / "sheet.png"))
    shown = int(re.search(r"shows (\d+) training picture", printed)[1])
    assert shown == int(re.search(r"(\d+) train,", printed)[1]), printed
    side = 96 + 2
    inside = [
        cells[y + 2 : y + side, x + 2 : x + side].tobytes()
        for y in range(0, cells.shape[0] - side, side)
        for x in range(0, cells.shape[1] - side, side)
    ]
    pictured = [cell for cell in inside if len(set(cell)) > 1]
    assert len(pictured) == len(set(pictured)) == shown


def test_pictures_that_are_mostly_black_stop_training(check, command, pictures, tmp_path):
    for path in pictures.rglob("*.png"):
        Image.fromarray(np.zeros((12, 10, 3), dtype=np.uint8)).save(path)
    code, printed = check()
    assert code == 2 and "24 pictures of one colour" in printed and "--data.range LOW HIGH" in printed
    code, printed = command("run", *FLAGS, "--data.root", pictures, "--out", tmp_path / "run")
    assert code == 2 and "nothing can be learnt" in printed, printed


def test_a_check_changes_nothing_of_a_run_and_finds_what_changed(finished_run, tmp_path, command):
    run = shutil.copytree(finished_run, tmp_path / "run")
    moved = write_pictures(tmp_path / "pictures")
    colour(99).save(moved / "ant" / "picture0.png")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    code, printed = command("check", run, "--data.root", moved, "--sheet", tmp_path / "sheet.png")
    assert code == 2 and "picture0.png (it is another picture now)" in printed, printed
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    (moved / "ant" / "picture0.png").write_bytes(b"no picture")
    printed = command("check", run, "--data.root", moved, "--sheet", tmp_path / "sheet.png")[1]
    assert printed.count("picture0.png") == 1 and "picture0.png (it is not a picture" in printed, printed


def test_the_sheet_beside_the_pictures_is_no_picture(command, tmp_path):
    root = write_pictures(tmp_path / "pictures", classes=())
    flags = [*FLAGS, "--data.root", root, "--out", root / "run"]
    assert command("check", *flags)[0] == 0 and (root / "run" / "check.png").is_file()
    assert "24 PNG" in command("check", *flags)[1]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        *[("check", ["--out", "ROOT"]), ("check", ["--sheet", "ROOT/sheet.png"]), ("run", ["--out", "ROOT"])],
        *[("check", ["--sheet", "ROOT/ant/sheet.png"]), ("run", ["--out", "ROOT/ant"])],
    ],
)
def test_nothing_is_written_among_the_pictures(command, tmp_path, name, words):
    """The sheet would be a picture of the next command, and the run's own pictures would end it; a class
    with a run in it would be left out."""
    root = write_pictures(tmp_path / "pictures", classes=("ant", "bee") if "ant" in words[1] else ())
    words = [word.replace("ROOT", f"{tmp_path / 'nowhere' / '..' / 'pictures'}") for word in words]
    (tmp_path / "nowhere").mkdir()
    before = sorted(root.rglob("*"))
    code, printed = command(name, "folder", *TINY, "--data.root", root, "--out", tmp_path / "new", *words)
    assert code == 2 and f"taken for some of them; give another one with {words[0]}" in printed, printed
    assert sorted(root.rglob("*")) == before and not (tmp_path / "new").exists()


def test_a_written_preset_keeps_all_that_was_asked_of_the_data(check, tmp_path):
    asked = ["--data.crop", 10, "--data.flip", True, "--data.margin", 2, "--data.labels", False]
    assert check(*asked, "--write", tmp_path / "mine.yaml")[0] == 0
    data = configs.parse(tmp_path / "mine.yaml", []).data
    assert (data.crop, data.flip, data.margin, data.labels) == (10, True, 2, False)
    assert (data.validation, data.test, data.size) == (0.2, 0.2, (8, 8))


def test_a_range_that_is_given_is_taken_after_the_measured_one_was_refused(command, tmp_path):
    """Nearly all dark, and one stray value that stretches the measured range."""
    root = tmp_path / "deep"
    root.mkdir()
    chance = np.random.default_rng(0)
    for index in range(24):
        array = chance.integers(0, 100, (12, 12)).astype(np.uint16)
        array[0, 0] = 65535 if index == 3 else 0
        Image.fromarray(array).save(root / f"{index:02d}.png")
    run = ["train-vqvae", *TINY_GREY, "--data.root", root, "--out", tmp_path / "run"]
    code, printed = command(*run)
    assert code == 2 and "65535 white" in printed and "--data.range LOW HIGH" in printed, printed
    code, printed = command(*run, "--data.range", 0, 100)
    assert code == 0 and "0 becomes black, 100 white" in printed, printed
    assert configs.parse(tmp_path / "run" / "config.yaml", []).data.range == (0, 100)


@pytest.mark.parametrize(
    "sides",
    [
        (3, 3),
        (28, 28),
        (60, 60),
        (64, 64),
        (48, 128),
        (61, 130),
        (128, 128),
        (130, 130),
        (256, 256),
        (64, 1111),
    ],
)
def test_levels_keep_the_coarsest_map_within_what_one_prior_learns(sides):
    """Two levels where a map of factor 4 would have 16 codes and more on both sides, or more than 32 on one,
    and nowhere else; sizes that divide."""
    factor, levels, size = _maps(sides)
    coarsest = factor * 2 ** (levels - 1)
    assert max(size) // coarsest <= LONGEST and all(side % coarsest == 0 for side in size)
    assert all(
        abs(side - given) <= coarsest / 2 for side, given in zip(size, sides, strict=True) if given > 4
    )
    assert (levels == 2) == (min(size) >= 4 * WORTH_TWO or max(size) > 4 * LONGEST)
    if levels == 2 and factor > 4:  # no smaller factor would do
        assert max(sides) / factor > LONGEST
    for given in (2, 3):  # of a preset that has them
        factor, levels, size = _maps(sides, given)
        coarsest = factor * 2 ** (levels - 1)
        assert levels == given and max(size) // coarsest <= LONGEST
        assert all(side % coarsest == 0 for side in size)


def test_pictures_of_one_small_map_are_given_one_level(check, command, pictures, tmp_path):
    code, printed = check("--write", tmp_path / "mine.yaml")
    assert code == 0 and "one map of 2x2 codes" in printed and "in place of 2 levels" in printed, printed
    assert configs.parse(tmp_path / "mine.yaml", []).stage1.levels == 1
    data = ["--data.root", pictures, "--data.channels", 3, "--data.size", 8, 8]
    code, printed = command("check", "mnist5k", *data, "--data.source", "folder", "--out", tmp_path / "run")
    assert code == 0 and "levels" not in printed, printed  # nor has that preset any


def begun_with(printed: str, preset: str | Path = "folder") -> Config:
    """The configuration that the last line begins a run with."""
    _, _, *words = shlex.split(printed.splitlines()[-1].removeprefix("next: vqprior "))
    return configs.parse(configs.find_preset(str(preset)), words)


@pytest.mark.parametrize(
    ("typed", "levels", "factor"),
    [
        ("--data.size 16 16 --stage1.K 32 --stage1.steps 7", 1, 4),
        ("--data.size 64 64", 2, 4),
        ("--data.size 68 68 --stage1.levels 1", 1, 4),
        ("--data.size 32 32", 1, 4),
        ("--data.size 64 64 --stage1.levels 3", 3, 4),
        ("--data.size 64 64 --stage1.levels 1", 1, 4),
        ("--data.size 256 256 --stage1.levels 1", 1, 8),  # 32x32 codes at most
        ("--data.size 264 264", 2, 4),
        ("--data.size 64 64 --stage1.factor 8 --stage2.batch_size 16", 1, 8),
        ("--data.size 64 64 --stage1.quantizer fsq --stage1.fsq.levels 4 5 --stage1.K 20 --stage1.D 2", 2, 4),
    ],
)
def test_what_was_typed_stays_in_what_is_suggested(command, pictures, tmp_path, typed, levels, factor):
    flags = [*typed.split(), "--data.root", pictures, "--data.validation", "0.2", "--data.test", "0.2"]
    wanted = configs.parse(configs.find_preset("folder"), [*map(str, flags)])
    code, printed = command("check", "folder", *flags, "--out", tmp_path / "run")
    assert code == 0, printed
    config = begun_with(printed)
    assert config.data == wanted.data and config.out == str(tmp_path / "run")
    assert (config.stage1.levels, config.stage1.factor) == (levels, factor)
    for flag in (word[2:] for word in typed.split() if word.startswith("--")):
        assert configs.flatten(asdict(config))[flag] == configs.flatten(asdict(wanted))[flag]
    code, printed = command(
        "check", "folder", *flags, "--out", tmp_path / "run", "--write", tmp_path / "mine.yaml"
    )
    assert code == 0, printed
    written = configs.parse(tmp_path / "mine.yaml", [])
    assert written.data == wanted.data
    if "stage1.K" in typed:
        assert (written.stage1.quantizer, written.stage1.K) == (wanted.stage1.quantizer, wanted.stage1.K)


def test_a_size_that_no_levels_divide_is_said_to_be_one_long_map(command, pictures, tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("data: {source: folder}\n")
    flags = ["--data.size", 500, 500, "--data.root", pictures, "--data.validation", 0.2, "--data.test", 0.2]
    code, printed = command("check", mine, *flags, "--out", tmp_path / "run")
    assert code == 0 and "one map of 125x125 codes is long" in printed, printed
    assert "--data.size 496 496 or 504 504 takes two" in printed
    assert begun_with(printed, mine).stage1.levels == 1


def test_levels_that_are_given_stay_however_long_their_maps(command, pictures, tmp_path):
    """33x33 codes on the coarsest of two levels, and no word of one long map."""
    flags = ["--data.size", 264, 264, "--data.root", pictures, "--data.validation", 0.2, "--data.test", 0.2]
    code, printed = command("check", "folder", *flags, "--out", tmp_path / "run")
    assert code == 0 and "is long" not in printed, printed
    config = begun_with(printed)
    assert (config.stage1.levels, config.stage1.factor) == (2, 4)


def test_what_ones_own_preset_says_stays_too(command, pictures, tmp_path):
    flags = ["--data.root", pictures, "--data.validation", 0.2, "--data.test", 0.2, "--out", tmp_path / "run"]
    mine = tmp_path / "mine.yaml"
    mine.write_text("data: {size: [16, 16]}\nstage1: {K: 99}\n")
    code, printed = command("check", mine, *flags)
    assert code == 0, printed
    line = printed.splitlines()[-1]
    assert "--data.size" not in line and "--stage1.K" not in line and "--stage2.layers" in line
    config = configs.parse(mine, shlex.split(line.removeprefix(f"next: vqprior run {mine} ")))
    assert config.data.size == (16, 16) and config.stage1.K == 99


def test_a_written_preset_has_all_that_the_other_said(command, pictures, tmp_path):
    mine, better = tmp_path / "mine.yaml", tmp_path / "better.yaml"
    mine.write_text(
        "stage1: {quantizer: fsq, fsq: {levels: [8, 6, 5]}, D: 3, K: 240, width: 8, perceptual: 0.5}\n"
        "stage2: {prior: transformer}\nseed: 7\n"
    )
    flags = ["--data.root", pictures, "--data.validation", 0.2, "--data.test", 0.2, "--out", tmp_path / "run"]
    code, printed = command("check", mine, *flags, "--stage1.batch-size", 4, "--write", better)
    assert code == 0, printed
    config, before = configs.parse(better, []), configs.parse(mine, [])
    assert config.seed == 7 and config.stage2.prior == "transformer" and config.out is None
    for name in ("quantizer", "fsq", "D", "K", "width", "perceptual"):
        assert getattr(config.stage1, name) == getattr(before.stage1, name)
    assert config.stage1.batch_size == 4 and config.data.root == str(pictures)


@pytest.mark.parametrize(
    ("typed", "name"),
    [("--stage1.batch-size 4", "stage1.batch_size"), ("--stage2.label-dropout 0.3", "stage2.label_dropout")],
)
def test_flags_that_are_typed_in_other_ways_stay_as_well(check, typed, name):
    code, printed = check(*typed.split())
    assert code == 0, printed
    assert f"--{name} {typed.split()[1]} " in printed.splitlines()[-1]


def test_after_a_run_that_learnt_nothing_the_whole_command_is_said(command, pictures, tmp_path):
    """Its settings are not fixed yet."""
    run = RunDir(tmp_path / "run")
    run.path.mkdir()
    run.config_file.write_text(configs.dump(configs.parse(configs.find_preset("folder"), [])))
    flags = ["--data.root", pictures, "--data.size", 16, 16, "--data.validation", 0.2, "--data.test", 0.2]
    code, printed = command("check", "folder", *flags, "--out", run.path)
    assert code == 0 and "--data.size 16 16" in printed.splitlines()[-1], printed


def test_too_few_pictures_are_named(command, tmp_path):
    write_pictures(tmp_path / "few", 8, ())
    flags = ["--data.root", tmp_path / "few", "--data.validation", 0.3, "--data.test", 0.3]
    code, printed = command("check", "folder", *flags, "--stage1.batch_size", 64, "--out", tmp_path / "run")
    assert code == 0 and "- few pictures: train: " in printed and "validation: " in printed, printed
    assert "more than once: stage1.batch_size 64" in printed
    config = begun_with(printed)
    assert config.stage1.batch_size == 64 and config.stage2.batch_size <= 8


def test_pictures_of_large_maps_are_given_two_levels_in_words_and_the_preset_runs(command, tmp_path):
    """Flat pictures: 8 x 160 pixels are maps of 2x40 codes, and of 1x20."""
    for index in range(24):
        path = tmp_path / "wide" / "ab"[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        colour(index, 8, 160).save(path)
    data = ["--data.root", tmp_path / "wide", "--data.validation", 0.2, "--data.test", 0.2]
    written = tmp_path / "mine.yaml"
    code, printed = command("check", "folder", *data, "--out", tmp_path / "r", "--write", written)
    assert code == 0 and "2 levels of codes: 1x20" in printed and "then 2x40" in printed, printed
    preset = configs.parse(written, [])
    assert (preset.stage1.levels, preset.stage1.factor, preset.data.size) == (2, 4, (8, 160))
    assert preset.stage2_fine.steps == preset.stage2.steps == 2000
    few = "--stage1.steps 1 --stage2.steps 1 --stage2_fine.steps 1 --stage2.layers 2 --stage2_fine.layers 2"
    few += " --stage1.width 8 --stage2.channels 8 --stage2_fine.channels 8 --stage1.batch_size 8"
    few += " --stage1.codebook.kmeans False --sample.images 2 --precision no --data.workers 0"
    code, printed = command("run", written, *few.split(), "--out", tmp_path / "run")
    assert code == 0, printed


def test_settings_of_a_finer_prior_that_are_typed_keep_the_levels(command, pictures, tmp_path):
    flags = ["--data.root", pictures, "--data.validation", 0.2, "--data.test", 0.2, "--data.size", 16, 16]
    flags += ["--stage2_fine.dropout", 0.3, "--out", tmp_path / "run"]
    code, printed = command("check", "folder", *flags)
    assert code == 0, printed
    config = begun_with(printed)
    assert config.stage1.levels == 2 and config.stage2_fine.dropout == 0.3
    code, printed = command("check", "folder", *flags, "--write", tmp_path / "mine.yaml")
    assert code == 0 and configs.parse(tmp_path / "mine.yaml", []).stage2_fine.dropout == 0.3


def test_layers_are_enough_for_the_blocks_that_are_typed(command, pictures, tmp_path):
    flags = ["--data.root", pictures, "--data.validation", 0.2, "--data.test", 0.2, "--data.size", 16, 16]
    flags += ["--stage2.prior", "pixelsnail", "--stage2.pixelsnail.blocks", 10, "--out", tmp_path / "run"]
    code, printed = command("check", "folder", *flags)
    assert code == 0 and begun_with(printed).stage2.layers == 10, printed


@pytest.mark.parametrize("name", [b"caf\xe9", b"two\nlines", b"a space"])
def test_a_preset_for_a_folder_of_any_name_can_be_read(tmp_path, name):
    data = replace(Data(), root=os.fsdecode(name))
    write_preset(tmp_path / "mine.yaml", Check(data=data), data, {})
    assert configs.parse(tmp_path / "mine.yaml", []).data.root == data.root


def test_settings_that_are_said_can_be_typed(command, tmp_path):
    root = write_pictures(tmp_path / "my pictures", 40)
    flags = ["--data.root", root, "--out", tmp_path / "run", "--write", tmp_path / "mine.yaml"]
    code, printed = command("check", "folder", *flags)
    (said,) = (line for line in printed.splitlines() if "has settings to begin with: " in line)
    assert code == 0 and configs.parse(None, shlex.split(said.split(": ")[2])).data.root == str(root)


@pytest.mark.parametrize("precision", ["auto", "bf16", "no"])
def test_a_written_preset_has_the_precision_of_the_other(command, pictures, tmp_path, precision):
    mine, better = tmp_path / "my pictures.yaml", tmp_path / "my better.yaml"
    mine.write_text(f"precision: {precision}\n")
    flags = ["--data.root", pictures, "--data.validation", 0.2, "--data.test", 0.2, "--out", tmp_path / "run"]
    code, printed = command("check", mine, *flags, "--data.size", 16, 16, "--write", better)
    assert code == 0 and configs.parse(better, []).precision == precision, printed
    assert f"vqprior run '{better}'" in better.read_text()  # what its head says works as it is printed


def test_pictures_without_classes_are_drawn_without_guidance(command, tmp_path):
    """The run that is said to be next would be refused."""
    flat, better = write_pictures(tmp_path / "flat", 24, ()), tmp_path / "better.yaml"
    flags = ["--data.root", flat, "--data.validation", 0.2, "--data.test", 0.2, "--out", tmp_path / "run"]
    code, printed = command("check", "clothing64", *flags)
    assert code == 0 and begun_with(printed).sample.guidance == 1, printed
    assert command("check", "clothing64", *flags, "--write", better)[0] == 0
    assert configs.parse(better, []).sample.guidance == 1
