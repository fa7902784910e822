import errno
import math
import os
import re
import subprocess
import sys
from dataclasses import asdict, fields, is_dataclass, replace
from pathlib import Path
from typing import Literal

import pytest

from tests.launch import environment
from vqprior import configs
from vqprior.configs import Config, UserError
from vqprior.configs.commands import Check, Complete, Evaluation, Export, ImportCodes, Report, Score
from vqprior.configs.errors import refused_by_system
from vqprior.configs.schema import (
    LFQ,
    Adversary,
    Codebook,
    Data,
    Drawing,
    Sample,
    Stage1,
    Stage2,
    Stage2Fine,
    stage2,
)
from vqprior.runtime.run_dir import RunDir

PRESETS = configs.preset_names()


def test_the_promised_presets_ship():
    assert set(PRESETS) >= {
        "mnist5k",
        "mnist",
        "fashion_mnist",
        "cifar10",
        "celeba64",
        "imagenet128",
        "folder",
        "mnist_pixelsnail",
        "mnist_transformer",
        "clothing64",
        "ffhq256",
        "imagenet256",
    }


@pytest.mark.parametrize("name", PRESETS)
def test_preset_parses_and_its_dump_parses_back_to_the_same(name, tmp_path):
    config = configs.parse(configs.find_preset(name), [])
    (tmp_path / "config.yaml").write_text(configs.dump(config))
    assert configs.parse(tmp_path / "config.yaml", []) == config
    assert config != Config()  # its values arrived


@pytest.mark.parametrize("name", PRESETS)
def test_preset_says_how_to_run_it_and_what_to_expect(name):
    header = configs.find_preset(name).read_text().split("\ndata:")[0]
    assert f"vqprior run {name}" in header


@pytest.mark.parametrize("name", PRESETS)
def test_preset_says_nothing_of_another_kind_of_prior(name):
    config = configs.parse(configs.find_preset(name), [])
    assert not [idle for level in range(config.stage1.levels) for idle in config.stage2_of(level).idle()]


@pytest.mark.parametrize("kind", ["pixelsnail", "transformer"])
def test_presets_of_the_other_priors_share_stage_one_with_mnist(kind):
    """So that they can take over what it learnt, and their bits compare."""
    mnist, other = (configs.parse(configs.find_preset(name), []) for name in ("mnist", f"mnist_{kind}"))
    assert (other.data, other.stage1, other.sample) == (mnist.data, mnist.stage1, mnist.sample)
    assert other.stage2.prior == kind


def test_flags_win_over_the_preset_and_the_last_flag_wins():
    preset = configs.find_preset("mnist5k")
    config = configs.parse(preset, ["--stage1.K", "77", "--stage1.K", "78", "--stage1.learning_rate", "3e-4"])
    assert (config.stage1.K, config.stage1.learning_rate) == (78, 3e-4)
    assert config.data.source == "mnist5k"


def test_what_a_preset_says_of_levels_and_of_a_quantizer_goes_with_them(tmp_path, capsys):
    """Nobody could leave it out; what is typed and has no use is refused all the same."""
    two = configs.find_preset("clothing64")
    one = configs.parse(two, ["--stage1.levels", "1"])
    assert one.stage2_fine == Stage2Fine() != configs.parse(two, []).stage2_fine
    assert one.stage2 == configs.parse(two, []).stage2
    with pytest.raises(SystemExit, match="2"):
        configs.parse(two, ["--stage1.levels=1", "--stage2_fine.dropout", "0.3"])
    mine = tmp_path / "mine.yaml"
    mine.write_text("stage1: {quantizer: ema, beta: 0.5, codebook: {restart: 0}, width: 8}")
    changed = ["--stage1.quantizer", "gradient", "--stage1.quantizer=lfq", "--stage1.D", "9"]
    stage1 = configs.parse(mine, changed).stage1
    assert (stage1.codebook, stage1.beta, stage1.width) == (Stage1.codebook, 0.5, 8)
    with pytest.raises(SystemExit, match="2"):
        configs.parse(mine, [*changed, "--stage1.codebook.decay", "0.5"])
    said = capsys.readouterr().err
    assert "stage2_fine has settings" in said and "codebook.decay is 0.5" in said
    stored = configs.parse(mine, [])
    assert configs.parse_options(Config, changed, default=stored).stage1 == stage1
    assert configs.parse(mine, ["--stage1.quantizer", "gradient"]).stage1.codebook.restart == 0

    # Nothing but what the flags do away with
    mine.write_text("stage1: {quantizer: lfq, D: 9, lfq: {temperature: 0.5}}")
    assert configs.parse(mine, ["--stage1.levels", "1"]).stage1.lfq.temperature == 0.5
    assert configs.parse(mine, ["--stage1.quantizer", "ema"]).stage1.lfq == Stage1.lfq
    mine.write_text("stage1: {quantizer: ema, fsq: {levels: [8, 6, 5]}}")
    with pytest.raises(SystemExit, match="2"):
        configs.parse(mine, ["--stage1.levels", "2"])


def test_yaml_floats_in_scientific_notation_are_numbers(tmp_path):
    (tmp_path / "a.yaml").write_text("stage1: {learning_rate: 3e-4}")  # YAML itself reads a string
    assert configs.parse(tmp_path / "a.yaml", []).stage1.learning_rate == 3e-4


@pytest.mark.parametrize(
    ("text", "twice", "where"),
    [
        ("stage1: {K: 16}\ndata: {flip: true}\nstage1: {D: 4}", "stage1", "line 3, column 1"),
        ("stage1: {K: 16, D: 4, K: 8}", "K", "line 1, column 23"),
    ],
)
def test_a_name_that_is_twice_in_yaml_is_refused(tmp_path, text, twice, where):
    """PyYAML takes the last one: a section would be forgotten in silence."""
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(UserError, match=f"a.yaml is not valid YAML: it has {twice} twice.*\n.*{where}"):
        configs.parse(tmp_path / "a.yaml", [])
    (tmp_path / "a.yaml").write_text(
        "stage2: &prior {layers: 3, dropout: 0.2}\nstage2_fine: {<<: *prior, layers: 4}"
    )
    read = configs.read_yaml(tmp_path / "a.yaml")
    assert read["stage2_fine"] == {"layers": 4, "dropout": 0.2}


def test_a_typo_in_yaml_is_answered_like_one_on_the_command_line(tmp_path, capsys):
    (tmp_path / "a.yaml").write_text("stage1: {stepps: 5}")
    for preset, flags in ((tmp_path / "a.yaml", []), (None, ["--stage1.stepps", "5"])):
        with pytest.raises(SystemExit) as error:
            configs.parse(preset, flags)
        assert error.value.code == 2
        assert "--stage1.steps" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["stage1.learning_rate", "stage2_fine.clip_norm", "stage1.perceptual"])
def test_what_is_no_finite_number_is_refused(name, capsys):
    with pytest.raises(UserError, match=f"{name} is inf; it takes finite numbers"):
        configs.parse_options(Config, ["--stage1.levels", "2", f"--{name}", "inf"])
    with pytest.raises(SystemExit):
        configs.parse_options(Config, ["--stage1.levels", "2", f"--{name}", "nan"])
    assert f"{name} is nan; it must" in " ".join(capsys.readouterr().err.replace("\u2502", " ").split())


@pytest.mark.parametrize(
    "section",
    [
        *(Data(), Stage1(), Codebook(), LFQ(), Adversary(), Stage2(), Stage2Fine(), Sample()),
        *(Score(pictures="photos", out="found"), ImportCodes(out="mine")),
        Complete(image="photo.png", hide="left half"),
    ],
    ids=lambda section: type(section).__name__,
)
def test_no_field_is_nan_from_python_either(section):
    """Most comparisons with nan let it pass: it was told later, or made nan of all weights."""
    names = [field.name for field in fields(section) if field.type is float]
    for name in names:
        with pytest.raises(ValueError, match=f"{name} is nan"):
            replace(section, **{name: math.nan})
    assert {"temperature", "guidance", "top_p"} <= {*names} or not isinstance(section, Drawing)


@pytest.mark.parametrize("name", ["temperature", "guidance", "top_p"])
def test_how_codes_are_drawn_takes_finite_numbers_from_python_too(name):
    with pytest.raises(ValueError, match=f"{name} is inf; it takes finite numbers"):
        Sample(**{name: math.inf})
    with pytest.raises(ValueError, match=r"top_k is 2\.5; it is a whole number"):
        Drawing(top_k=2.5)


def test_presets_are_found_by_name_path_and_old_path(tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text("seed: 3")
    assert configs.find_preset(str(own)) == own
    assert configs.find_preset("mnist").read_text() == configs.find_preset("configs/mnist.yaml").read_text()
    assert configs.find_preset("mnist.yaml").name == "mnist.yaml"
    with pytest.raises(UserError, match="mnist5k"):
        configs.find_preset("nothing")


def test_every_field_is_documented():
    folder = Path(configs.__file__).parent
    source = "".join(file.read_text() for file in (*folder.glob("schema/*.py"), folder / "commands.py"))

    def walk(schema: type) -> None:
        for field in fields(schema):
            if is_dataclass(field.type):
                walk(field.type)
            elif field.name in schema.__annotations__:
                assert re.search(rf'    {field.name}: [^\n]*\n    """', source), (
                    f"{schema.__name__}.{field.name}"
                )

    for schema in (Config, Complete, Evaluation, Report, Export):
        walk(schema)


def test_differences_name_fixed_fields_only():
    old, new = Config(), configs.parse(None, ["--stage1.K", "9", "--stage1.steps", "1", "--data.root", "x"])
    assert configs.differences(old, new, "data|stage1") == ["stage1.K is 512 there and 9 now"]
    assert configs.differences(old, new, "stage2") == []


UNUSED = {
    "stage2_fine.layers": [],
    "stage1.fsq.levels": [],
    "stage1.codebook.decay": ["--stage1.quantizer", "simvq"],
    "stage1.features.steps": [],
    "stage1.adversary.width": [],
    "stage2.transformer.heads": [],
    "stage2_fine.pixelsnail.heads": ["--stage1.levels", "2"],
}


@pytest.mark.parametrize("name", UNUSED)
def test_defaults_of_another_time_change_nothing_where_they_are_not_used(name):
    config = configs.parse(None, UNUSED[name])
    before = {"stage1.fsq.levels": [2, 3], "stage1.codebook.decay": 0.5}.get(name, 16)
    stored = configs.from_tree(configs.flatten(asdict(config)) | {name: before})
    assert configs.differences(stored, config, "data|stage1|stage2|stage2_fine") == []


def test_what_is_used_differs():
    used = {
        "stage2_fine.layers": "--stage1.levels 2",
        "stage1.adversary.width": "--stage1.adversarial 1",
        "stage2.transformer.heads": "--stage2.prior transformer",
    }
    for name, flags in used.items():
        config = configs.parse(None, flags.split())
        stored = configs.from_tree(configs.flatten(asdict(config)) | {name: 16})
        (difference,) = configs.differences(stored, config, "data|stage1|stage2|stage2_fine")
        assert difference.startswith(f"{name} is 16 there and ")


def test_parsing_imports_no_torch():
    code = (
        "import sys; from vqprior import configs; configs.parse(None, []); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], env=environment(None), check=True)


@pytest.mark.parametrize("former", ["stage1: {codebook: ema}", "sample: {n: 7}", "data: {memory_gb: .inf}"])
def test_settings_of_before_the_first_release_are_refused_in_words(tmp_path, former):
    (tmp_path / "config.yaml").write_text(former)
    with pytest.raises(UserError, match=r"are not of this version of vqprior|it takes finite numbers"):
        RunDir(tmp_path).config()


CLASSES = {
    "null": "",
    '""': "",
    "3": "#3",  # a number
    '"3"': "3",  # a name
    '"None"': "None",
    '"no"': "no",
    '"--seed"': "--seed",
    '"a b #1"': "a b #1",
}


@pytest.mark.parametrize("label", CLASSES)
def test_a_class_in_yaml_is_a_name_or_a_number(tmp_path, label):
    """Null is none."""
    (tmp_path / "a.yaml").write_text(f"sample: {{label: {label}}}")
    config = configs.parse(tmp_path / "a.yaml", [])
    assert config.sample.label == CLASSES[label]
    (tmp_path / "b.yaml").write_text(configs.dump(config))
    assert configs.parse(tmp_path / "b.yaml", []) == config == configs.from_tree(asdict(config))


@pytest.mark.parametrize("label", ["no", "true", "1.5", "[cat]"])
def test_what_yaml_reads_as_something_else_is_no_class(tmp_path, label):
    (tmp_path / "a.yaml").write_text(f"sample: {{label: {label}}}")
    with pytest.raises(UserError, match="quotation marks"):
        configs.parse(tmp_path / "a.yaml", [])


def _flags(schema: type, prefix: str = "") -> set[str]:
    """All flags of a schema, `--data.root` and so on."""
    nested = {field.name: field.type for field in fields(schema)}
    parts = [
        _flags(kind, f"{prefix}{name}.") if is_dataclass(kind) else {f"--{prefix}{name}"}
        for name, kind in nested.items()
    ]
    return set().union(*parts)


def test_no_flag_is_taken_for_one_of_a_launcher():
    """Python 3.11's argparse refuses, or swallows, a word that begins a launcher's option, wherever it
    stands."""
    from accelerate.commands.launch import launch_command_parser
    from torch.distributed.run import get_args_parser

    mine = set().union(*map(_flags, (Config, Sample, Complete, Evaluation, Report, Export, Check)))
    mine |= {flag.replace("_", "-") for flag in mine}  # tyro takes both
    for parser in (get_args_parser(), launch_command_parser()):
        options = [option for action in parser._actions for option in action.option_strings]
        assert not {flag for flag in mine for option in options if option.startswith(flag)}


def test_no_precision_in_yaml_is_no_precision(tmp_path):
    """YAML reads the word without quotation marks as false."""
    (tmp_path / "a.yaml").write_text("precision: no\nsample: {precision: no}\n")
    config = configs.parse(tmp_path / "a.yaml", [])
    assert config.precision == config.sample.precision == "no"


def test_a_kind_of_prior_needs_no_settings_of_its_own(monkeypatch):
    monkeypatch.setattr(stage2, "PriorKind", Literal["gated_pixelcnn", "pixelsnail", "plain"])
    assert stage2.Stage2(pixelsnail=stage2.PixelSNAIL(heads=2)).idle() == ["stage2.pixelsnail"]
    assert stage2.Stage2(prior="plain").idle() == []


@pytest.mark.parametrize(
    ("number", "remedy"),
    [(errno.ENOSPC, "make room"), (errno.EFBIG, "ulimit -f"), (errno.EROFS, "read and write")],
)
def test_what_the_system_refuses_is_said_with_what_to_do(number, remedy):
    said = refused_by_system(OSError(number, os.strerror(number), "runs/a"))
    assert f"{os.strerror(number)}: runs/a." in said and remedy in said


def test_evaluations_without_a_checkpoint_are_refused_with_what_to_type():
    with pytest.raises(ValueError, match=r"type --stage2\.save_every 20 too$"):
        Stage2(eval_every=20)
