"""Columns for people."""

from typing import Any

from edgecore import tables

PODS = {
    "items": [
        {"metadata": {"namespace": "a", "name": "one", "uid": "u1"}},
        {"metadata": {"namespace": "b", "name": "two", "uid": "u2"}},
    ],
    "running": [
        {
            "uid": "u1",
            "namespace": "a",
            "name": "one",
            "phase": "Running",
            "ip": "",
            "ready": True,
            "restarts": 3,
        },
        {
            "uid": "u9",
            "namespace": "a",
            "name": "old",
            "phase": "Running",
            "ip": "1.1.1.1",
            "ready": False,
            "restarts": 0,
        },
    ],
}


def test_pods_as_they_run_and_as_they_are_wanted() -> None:
    lines = [line.split() for line in tables.render("pods", PODS).splitlines()]
    assert lines == [
        ["NAMESPACE", "NAME", "READY", "STATUS", "RESTARTS", "IP"],
        ["a", "old", "no", "Running", "0", "1.1.1.1"],
        ["a", "one", "yes", "Running", "3", "-"],
        ["b", "two", "-", "-", "-", "-"],
    ]


def test_one_namespace_only() -> None:
    assert "old" not in tables.render("pods", tables.in_namespace(PODS, "b"))
    assert tables.render("devices", {"items": []}) == "no devices"


def test_a_node_and_a_device_of_any_shape() -> None:
    node = {"metadata": {"name": "n"}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    assert "Ready" in tables.render("nodes", {"items": [node]}).splitlines()[1]
    assert "None" not in tables.render("devices", {"items": [{"metadata": {"namespace": "d", "name": "x"}}]})


def test_the_status_says_what_was_dropped() -> None:
    text = tables.render_status(
        {
            "node": "n",
            "version": "1",
            "upSeconds": 5,
            "cloud": {
                "connected": False,
                "forSeconds": 7,
                "lastError": "cannot reach",
                "address": "",
                "kubeedge": False,
            },
            "outbox": {"waiting": 2, "bytes": 10, "dropped": {"event/full": 4}},
            "store": {
                "objects": 3,
                "complete": False,
                "setAside": "/x",
                "lockedRows": 2,
                "keyFault": "there is no /run/key",
            },
            "pods": 1,
        }
    )
    assert "not connected for 7 s, on its own: cannot reach" in text
    assert "event/full 4" in text
    assert "not yet complete" in text
    assert "/x" in text


def test_describe_says_how_a_pod_runs_and_then_all_of_it() -> None:
    text = tables.describe(PODS["items"][0], PODS["running"])
    assert text.startswith("READY  STATUS   RESTARTS  IP\nyes    Running  3         -\n\nmetadata:\n")
    assert tables.describe(PODS["items"][1], PODS["running"]).startswith("metadata:\n")


DEVICES: dict[str, Any] = {
    "items": [
        {
            "metadata": {"namespace": "plant", "name": "pump"},
            "spec": {"deviceModelRef": {"name": "m"}, "protocol": {"protocolName": "modbus"}},
        }
    ],
    "twins": [
        {
            "id": "plant/pump",
            "state": "online",
            "protocol": "modbus",
            "mapper": "modbus",
            "twins": {
                "rpm": {"type": "int", "desired": "900", "reported": "850", "reportedAt": 1},
                "temp": {"type": "float", "desired": None, "reported": "21.5", "reportedAt": 1},
                "new": {"type": "int", "desired": None, "reported": None, "reportedAt": None},
            },
        },
        {"id": "a/bulb", "state": "", "protocol": "", "mapper": "", "twins": {}},
    ],
}


def test_devices_show_their_state_and_what_is_not_yet_as_wanted() -> None:
    head, bulb, pump = tables.render("devices", DEVICES).splitlines()
    assert head.split() == ["NAMESPACE", "NAME", "MODEL", "PROTOCOL", "STATE", "MAPPER", "READINGS"]
    assert bulb.split() == ["a", "bulb", "-", "-", "-", "-", "-"]
    assert pump.split(maxsplit=6)[4:] == ["online", "modbus", "rpm=850 (wanted 900), temp=21.5, new=?"]
    assert "bulb" not in tables.render("devices", tables.in_namespace(DEVICES, "plant"))


def test_readings_come_in_the_order_of_their_times() -> None:
    answer = {
        "device": "plant/pump",
        "properties": {"rpm": [[2000, "900"], [3000, "910"]], "on": [[2500, "true"]]},
    }
    lines = [line.split() for line in tables.history(answer).splitlines()]
    assert lines[1:] == [
        ["1970-01-01T00:00:02.000Z", "rpm", "900"],
        ["1970-01-01T00:00:02.500Z", "on", "true"],
        ["1970-01-01T00:00:03.000Z", "rpm", "910"],
    ]
    assert "rpm" not in tables.history(answer, "on")
    assert tables.history({"properties": {}}) == "no readings since the daemon started"


def test_a_pods_state_in_a_word() -> None:
    waiting = {"state": {"waiting": {"reason": "CrashLoopBackOff"}}}
    ended = {"state": {"terminated": {"reason": "Error", "exitCode": 1}}}
    for status, word in (
        ({"phase": "Running"}, "Running"),
        ({"phase": "Running", "containerStatuses": [waiting]}, "CrashLoopBackOff"),
        ({"phase": "Failed", "containerStatuses": [ended]}, "Error"),
        ({"phase": "Failed", "reason": "Evicted"}, "Evicted"),
        ({"phase": "Pending", "initContainerStatuses": [ended]}, "Init:Error"),
        (
            {
                "phase": "Pending",
                "initContainerStatuses": [{"state": {"waiting": {"reason": "ErrImagePull"}}}],
            },
            "Init:ErrImagePull",
        ),
        ({}, ""),
    ):
        assert tables.pod_state(status) == word


def test_describe_says_what_is_wrong_with_a_pod() -> None:
    status = {
        "phase": "Running",
        "conditions": [
            {"type": "Ready", "status": "False", "message": "containers with unready status: [c]"},
            {"type": "Initialized", "status": "True"},
        ],
        "containerStatuses": [
            {
                "name": "c",
                "ready": False,
                "restartCount": 4,
                "image": "i:1",
                "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 80s"}},
                "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled", "finishedAt": "T"}},
            }
        ],
    }
    item = {
        "metadata": {
            "name": "p",
            "namespace": "d",
            "uid": "u",
            "managedFields": [{"manager": "m"}],
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"},
        }
    }
    (running,) = tables.reported([item], {"u": status})
    assert (running["ready"], running["restarts"]) == (False, 4)
    text = tables.describe(item, [running])
    assert "back-off 80s; ended before with exit code 137 (OOMKilled) at T" in text
    assert "Ready is False: containers with unready status: [c]" in text
    assert "managedFields" not in text
    assert "last-applied" not in text
    assert tables.reported([item], {}) == []


def test_without_a_daemon_the_status_says_what_to_do() -> None:
    found = {"objects": 3, "pods": 2, "waiting": 1, "bytes": 10, "complete": False}
    text = tables.render_rest("", "edgecore does not run", found)
    assert "edgecore join" in text
    assert "systemctl start edgecore" in text
    assert "not yet complete" in text
    assert "edge-7" in tables.render_rest("edge-7", "x", found)
