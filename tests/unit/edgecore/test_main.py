"""What the daemon loads before it starts pods: each pod of a machine that was switched on waits for it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

NOT_FOR_A_PODS_START = (
    # outside libraries of parts that come later
    "websockets",
    "paho",
    "h11",
    "yaml",
    # the standard library's large ones
    "email",
    "http.client",
    "multiprocessing",
    "sqlite3.dump",
    "urllib.request",
    "xml",
    "zipfile",
    # our own
    "beehive.apis.devices",
    "beehive.application",
    "beehive.dmi",
    "beehive.selectors",
    "beehive.tunnel",
    "devicetwin",
    "edgecore.discovery.book",
    "edgecore.edgehub.certificate",
    "edgecore.edgehub.link",
    "edgecore.edgestream.client",
    "edgecore.eventbus.mqtt",
    "edgecore.metaserver.api",
    "edgecore.surroundings",
)


def loaded(*modules: str) -> set[str]:
    """What a fresh interpreter has after importing these."""
    code = f"import json, sys, {', '.join(modules)}; print(json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return set(json.loads(done.stdout))


@pytest.fixture(scope="module")
def first() -> set[str]:
    return loaded("edgecore.cli", "edgecore.main")


@pytest.mark.parametrize("name", NOT_FOR_A_PODS_START)
def test_it_is_not_loaded_before_pods_start(name: str, first: set[str]) -> None:
    assert name not in first, (
        f"{name} is loaded by edgecore.main: import it in edgecore/surroundings.py or below it"
    )


def test_what_pods_need_is_loaded_before_they_start(first: set[str]) -> None:
    """Nothing of it is first imported while they do."""
    assert {"edgecore.edged.worker", "edgecore.edged.cri", "edgecore.metamanager.store"} <= first


def test_no_value_of_the_first_stage_is_a_dataclass() -> None:
    """Each costs a millisecond or two at import, where a msgspec struct costs a fortieth of that."""
    code = """
import dataclasses, json, sys, edgecore.cli, edgecore.main
print(json.dumps(sorted({
    f"{one.__module__}.{one.__qualname__}"
    for name, module in list(sys.modules.items()) if name.split(".")[0] in ("beehive", "edgecore")
    for one in vars(module).values() if isinstance(one, type) and dataclasses.is_dataclass(one)
})))
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert json.loads(done.stdout) == []


def test_the_names_are_those_of_modules() -> None:
    """A module that was renamed would pass the test above for ever."""
    gone = set(NOT_FOR_A_PODS_START) - loaded(*NOT_FOR_A_PODS_START)
    assert gone == set()
