"""The versions that are claimed are those that CI tries."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_oldest_versions_claimed_are_the_ones_tried():
    claimed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    tried = re.findall(r"^(\S+)==(\S+)$", (ROOT / "tests" / "oldest.txt").read_text(), re.M)
    assert sorted(f"{name}>={version}" for name, version in tried) == sorted(claimed)
