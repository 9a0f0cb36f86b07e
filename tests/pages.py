"""Files that pages of the documentation show whole: a block of code whose first line is a comment with its path."""

import re

from tests.places import ROOT

_BLOCK = re.compile(r"^```\w+\n# (\S+/\S+)\n(.*?)^```$", re.M | re.S)


def files_shown(page: str) -> dict[str, str]:
    """The text of each file that a page shows, by its path."""
    return dict(_BLOCK.findall((ROOT / page).read_text()))
