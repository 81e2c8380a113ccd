"""Names and ports of a trial."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest

from deploy.errors import TrialError
from deploy.home import DEFAULT_HOME, POD_NETWORK, Home, Ports, choose_pod_subnet


def test_the_default_home_has_the_documented_names() -> None:
    home = Home.at(DEFAULT_HOME)
    assert (home.bridge, home.network) == ("skerry0", "skerry")
    assert str(choose_pod_subnet(home, [])) == "10.213.0.0/24"


def test_two_homes_share_no_name() -> None:
    one, other = Home.at(Path("/tmp/one")), Home.at(Path("/tmp/other"))
    assert one.bridge != other.bridge
    assert one.network != other.network
    assert len(one.bridge) <= 15


@pytest.mark.parametrize("path", ["relative/home", "/", "/tmp"])
def test_a_home_must_be_a_folder_of_its_own(path: str) -> None:
    with pytest.raises(TrialError, match="SKERRY_HOME"):
        Home.at(Path(path))


def test_a_home_must_leave_room_for_socket_paths() -> None:
    with pytest.raises(TrialError, match="unix socket"):
        Home.at(Path("/" + "x/" * 50))


def test_a_subnet_in_use_is_passed_over() -> None:
    home = Home.at(DEFAULT_HOME)
    taken = [ipaddress.IPv4Network("10.213.0.0/23"), ipaddress.IPv4Network("192.168.1.0/24")]
    assert str(choose_pod_subnet(home, taken)) == "10.213.2.0/24"


def test_no_subnet_left_is_said() -> None:
    with pytest.raises(TrialError, match="in use"):
        choose_pod_subnet(Home.at(DEFAULT_HOME), [POD_NETWORK])


def test_ports_from_a_base() -> None:
    assert Ports.from_base(20000) == Ports(api=20000, hub=20001, mqtt=20002)
    with pytest.raises(TrialError, match="out of range"):
        Ports.from_base(65534)
