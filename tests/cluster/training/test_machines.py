"""Each training worker uses the network by which the others reach its machine."""

import os
from collections import namedtuple

import psutil
import pytest
from ray.train.torch import TorchConfig

from cluster.training import machines

Address = namedtuple("Address", "address")
#: A machine whose own name is its loopback, as Debian and Ubuntu write it.
CARDS = {
    "lo": [Address("127.0.0.1"), Address("127.0.1.1")],
    "eth0": [Address("10.0.0.7"), Address("fe80::1%eth0"), Address("02:42:0a:00:00:07")],
    "ib0": [Address("10.1.0.7")],
}


@pytest.fixture
def cards(monkeypatch):
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: CARDS)


def test_the_interface_is_the_one_that_has_the_address(cards):
    assert machines.interface("10.0.0.7") == "eth0"
    assert machines.interface("fe80::1") == "eth0"
    assert machines.interface("10.1.0.7") == "ib0"
    assert machines.interface("127.0.0.1") == "lo"
    assert machines.interface("10.0.0.70") is None


def test_what_the_user_set_stays(cards, monkeypatch):
    monkeypatch.setattr("ray.util.get_node_ip_address", lambda: "10.0.0.7")
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "ib0")
    machines.choose_interface()
    assert [os.environ[name] for name in machines.VARIABLES] == ["eth0", "ib0"]


def test_an_unknown_address_sets_nothing(cards, monkeypatch):
    monkeypatch.setattr("ray.util.get_node_ip_address", lambda: "192.168.0.1")
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    machines.choose_interface()
    assert "GLOO_SOCKET_IFNAME" not in os.environ


class Group:
    """Workers that only note what they are to do."""

    def __init__(self):
        self.done = []

    def execute(self, function):
        self.done.append(function)


def test_workers_choose_before_they_meet(monkeypatch):
    chosen = machines.NetworkConfig(backend="gloo").backend_cls
    monkeypatch.setattr(TorchConfig().backend_cls, "on_start", lambda self, group, config: group.done.append("met"))
    group = Group()
    chosen().on_start(group, None)
    assert group.done == [machines.choose_interface, "met"]
