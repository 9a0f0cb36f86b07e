"""The numbers that Prometheus reads: those that the board draws are there, under a real Ray."""

import io
import json
import re
import sys
import time
import urllib.request
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from cluster.engine import meters
from cluster.engine.progress import Progress
from tests.places import ROOT

BOARD = json.loads((ROOT / "cluster/deploy/grafana.json").read_text())
DRAWN = {name for panel in BOARD["panels"] for one in panel["targets"]
         for name in re.findall(r"\bray_\w+", one["expr"])}  # fmt: skip


def test_all_meters_are_drawn():
    assert {name for name in DRAWN if name.startswith("ray_fss_")} == set(map(meters.exported, meters.METERS))


def test_labels_that_are_drawn_are_those_of_the_meters():
    for panel in BOARD["panels"]:
        for one in panel["targets"]:
            wanted = {*re.findall(r"{{(\w+)}}", one["legendFormat"])}
            for name, (_, _, labels) in meters.METERS.items():
                if meters.exported(name) in one["expr"]:
                    assert wanted == {*labels}


def test_panels_read_the_source_that_is_chosen_and_have_places_of_their_own():
    assert {panel["datasource"]["uid"] for panel in BOARD["panels"]} == {"${datasource}"}
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in BOARD["panels"]]
    assert len({*places}) == len(places) == len({panel["id"] for panel in BOARD["panels"]})


@pytest.mark.parametrize("there", [False, True])
def test_only_under_a_ray_is_counted(monkeypatch, there):
    asked = []
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: there))
    monkeypatch.setattr(meters, "_meter", lambda name: asked.append(name) or Mock())
    meters.done("label", "images", 3, 1)
    meters.left("label", 2)
    meters.workers(1, 0)
    assert {*asked} == ({*meters.METERS} if there else set())


def exposed():
    """The text that Prometheus reads of this Ray, by the names in it."""
    import ray

    (node,) = ray.nodes()
    with urllib.request.urlopen(f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics") as answer:
        return answer.read().decode()


@pytest.mark.slow
def test_every_name_of_the_board_is_exported(pools):
    """Ray exports every ten seconds; workers of `pools` were counted when they came."""
    pools[1].on_each(str, [1])
    with Progress("metered", total=4, stream=io.StringIO()) as progress:
        progress.update(items=7, failed=1)
        for _ in range(180):
            lacking = {name for name in DRAWN if f"\n{name}{{" not in exposed()}
            if not lacking:
                break
            time.sleep(1)
        assert lacking == set()
        (line,) = [line for line in exposed().splitlines() if re.match("ray_fss_items_total.*metered", line)]
        assert line.endswith(" 7.0")
        assert 'unit="images"' in line
