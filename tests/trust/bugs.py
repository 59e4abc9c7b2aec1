"""The bugs of bugs.yaml."""

from pathlib import Path

import yaml

from trust.part import Bug

_ALL = yaml.safe_load(Path(__file__).with_name("bugs.yaml").read_text())
BUGS = [Bug(**bug) for bug in _ALL["bugs"]]
OF_PART = {bug.pop("part"): Bug(**bug) for bug in _ALL["parts"]}
