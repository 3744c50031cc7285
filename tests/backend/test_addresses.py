"""The address that a machine offers to the others, tested without a second machine;
tests/engine/test_two_machines.py has two.
"""

import dataclasses
import socket

import pytest

from mindyolo_ext.backend import addresses, mpi


@pytest.fixture
def cards(monkeypatch) -> dict[str, str]:
    """Interfaces of a machine whose default route uses eth1."""
    found = {"docker0": "172.17.0.1", "eth0": "192.168.0.7", "eth1": "10.0.0.7"}
    monkeypatch.setattr(addresses, "interfaces", lambda: found)
    monkeypatch.setattr(
        addresses, "towards", lambda host: {"me": "127.0.1.1"}.get(host, "10.0.0.7")
    )
    return found


@pytest.mark.parametrize(
    "variable, wanted",
    [
        ("", ["10.0.0.7", "172.17.0.1", "192.168.0.7"]),
        ("eth0", ["192.168.0.7"]),
        ("eth0,ib0,eth1", ["192.168.0.7", "10.0.0.7"]),
        ("ib0", []),
    ],
)
@pytest.mark.usefixtures("cards")
def test_addresses_to_offer(variable, wanted):
    assert addresses.offered({"GLOO_SOCKET_IFNAME": variable}) == wanted


def test_the_interface_of_a_machine_that_takes_its_name_for_the_loopback(cards):
    assert addresses.interface_towards("10.0.0.1") == "eth1"
    assert addresses.interface_towards("me") == "eth1"
    del cards["eth1"]
    assert addresses.interface_towards("10.0.0.1") == ""


def test_the_way_to_a_host(monkeypatch):
    assert addresses.towards("127.0.0.1") == "127.0.0.1"
    assert all(not addresses.is_loopback(address) for address in addresses.interfaces().values())

    def unknown(*_, **__):
        raise socket.gaierror("unknown")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert addresses.towards("nowhere") == ""


def test_only_the_right_machine_answers():
    with addresses.answering(["127.0.0.1"]) as offer:
        assert addresses.reached(offer) == [True]
        other = dataclasses.replace(offer, token=bytes(16))
        assert addresses.reached(other) == [False], "another machine has the same private address"
    assert addresses.reached(offer) == [False], "nobody listens"


def test_the_first_address_that_all_ranks_can_use():
    candidates, all_three = ("172.17.0.1", "10.0.0.7", "192.168.0.7"), [True, True, True]
    by_rank = [all_three, [False, True, True], [False, True, False]]
    assert mpi.common_address(candidates, by_rank) == "10.0.0.7"
    by_rank[1] = [True, False, True]
    assert mpi.common_address(candidates, by_rank) is None
    message = mpi.unreachable(candidates, by_rank, ["a net:1", "b net:1", "c net:1"])
    assert message.startswith(
        "mpirun: b, c cannot connect to a, where rank 0 runs, at 172.17.0.1 or"
    )
    assert "mpirun -x GLOO_SOCKET_IFNAME=" in message
    assert "a, where rank 0 runs, has no network interface" in mpi.unreachable(
        (), [[], []], ["a net:1", "b net:1"]
    )
