"""`skerry down` puts the machine back, and `skerry up` goes on from where it was."""

from __future__ import annotations

from pathlib import Path

from tests.e2e import footprint
from tests.e2e.skerry import Skerry, page


def test_down_leaves_nothing_and_up_goes_on(machine: None) -> None:
    skerry = Skerry(node_name="edge-d")
    before = footprint.look(skerry.home)
    try:
        skerry.up()
        first = skerry.running_pod()
        assert Path("/sys/class/net").joinpath(_bridge(skerry)).exists()
        skerry.kubectl("label", "node", "edge-d", "shelf=north")

        skerry.down()
        assert footprint.left_behind(before, skerry.home) == {}
        assert skerry.run("down").returncode == 0  # again, with nothing to do

        skerry.up()
        again = skerry.running_pod()
        assert again["metadata"]["uid"] == first["metadata"]["uid"]
        assert page(again["status"]["podIP"]) == "Hello from the edge.\n"
        (node,) = skerry.get("nodes")["items"]
        assert node["metadata"]["labels"]["shelf"] == "north"
        # Nobody stopped these in order.
        for part in ("containerd", "edgecore", "cloudcore", "supervisor", "mapper", "mosquitto"):
            skerry.run("stop", part, "--kill")
        skerry.down("--purge")
        assert not skerry.home.exists()
        assert footprint.left_behind(before, skerry.home) == {}
    finally:
        skerry.close()


def _bridge(skerry: Skerry) -> str:
    from deploy.home import Home

    return Home.at(skerry.home).bridge
