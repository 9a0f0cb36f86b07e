"""Which head a run has: a default that is written out is the same setting, any other value another one."""

import pytest

from cluster.features.head import HeadSettings
from fss import heads


@pytest.mark.parametrize("name", heads.names())
def test_options_that_were_not_given_are_filled_in(name):
    bare = HeadSettings(name, {}).complete
    assert {**bare.options} == vars(heads.read_options(name, {})[0])
    for key, value in bare.options.items():
        assert HeadSettings(name, {key: value}).complete == bare, key


def test_another_value_is_another_setting():
    assert HeadSettings("umtfss", {"dim": 32}).complete != HeadSettings("umtfss", {}).complete
