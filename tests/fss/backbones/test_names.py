"""Networks by name: found in the files of the folder, without torch."""

import subprocess
import sys

from fss import backbones
from tests.places import ROOT

LIGHT = """
import sys
from fss import backbones, heads
print(*backbones.names(), *heads.names())
assert "torch" not in sys.modules
"""


def test_names_are_listed_without_torch():
    """Commands answer `--help` and slips of the pen at once."""
    listed = subprocess.run([sys.executable, "-c", LIGHT], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {"resnet50_linear", "vit_small", "prototype", "umtfss"} <= set(listed.split())


def test_every_network_has_a_preset_and_every_preset_a_network():
    assert {path.stem for path in (ROOT / "conf").glob("backbone/*.yaml")} == {
        name.removesuffix("/*") for name in backbones.names()
    }
