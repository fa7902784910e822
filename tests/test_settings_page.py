"""The page of all settings says what the schema says."""

from dataclasses import asdict, fields, is_dataclass

import pytest

from benchmarks.settings import COMMANDS, page, takes
from tests.launch import ROOT
from vqprior.configs import Config, commands, flatten
from vqprior.configs.schema import Adversary, Data, GatedPixelCNN, Sample, Stage1, Stage2, Stage2Fine


def test_the_page_is_that_of_the_schema():
    written = (ROOT / "docs" / "settings.md").read_text()
    assert written == page(), "python -m benchmarks.settings docs/settings.md"


def test_every_setting_of_a_run_is_on_it():
    shown = page()
    for name in flatten(asdict(Config())):
        if not name.startswith("stage2_fine."):  # which it says are those of stage2
            assert f"| `{name}`" in shown, name
    assert "`stage2_fine.above_blocks`" in shown
    defaults = {field.name: field.default for field in fields(Stage2Fine)}
    assert {field.name: field.default for field in fields(Stage2)}.items() <= defaults.items()


def test_every_command_with_settings_of_its_own_is_on_it():
    here = [owner for owner in vars(commands).values() if is_dataclass(owner)]
    own = {owner for owner in here if owner.__module__ == commands.__name__ and owner.__annotations__}
    shared = {part for owner in own for part in owner.mro()[1:]}
    assert own - shared == {*COMMANDS.values()}


@pytest.mark.parametrize(
    ("section", "name", "hint", "said"),
    [
        (Stage1(), "K", int, "whole number, 2 to 65536"),
        (Stage1(), "factor", int, "whole number, 2, 4, 8, 16, ..."),
        (Adversary(), "width", int, "whole number, 16, 32, 48, 64, ..."),
        (commands.App(), "port", int, "whole number, 0 to 65535"),
        (Stage1(), "eval_every", int, "whole number, at least 1"),
        (Stage1(), "steps", int, "whole number, at least 0"),
        (Stage2(), "steps", int, "whole number, at least 1"),
        (GatedPixelCNN(), "kernel", int, "whole number, 3, 5, 7, 9, ..."),
        (Data(), "validation", float, "number, above 0 and below 0.5"),
        (Data(), "decoder", str | None, "text"),
        (Sample(), "top_p", float, "number, above 0 and at most 1"),
        (Sample(), "seed", int, "whole number"),
    ],
)
def test_what_a_field_takes_is_what_the_schema_does_not_refuse(section, name, hint, said):
    assert takes(section, name, hint) == said
