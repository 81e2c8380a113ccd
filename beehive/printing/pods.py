"""How `kubectl get` prints pods.  Pure.

Source: kubernetes, pkg/printers/internalversion/printers.go, and the recorded tables."""

from __future__ import annotations

from datetime import datetime

from beehive.printing.cells import AGE, NAME, NONE, Json, Row, age, get


def _pod_ready(body: Json, now: datetime) -> str:
    statuses = get(body, "status.containerStatuses") or []
    total = len(get(body, "spec.containers") or ())
    return f"{sum(item.get('ready') is True for item in statuses)}/{total}"


def pod_status(body: Json, now: datetime) -> str:
    """The STATUS column of a pod.  Source: printPod."""
    status = body.get("status") or {}
    reason = status.get("reason") or status.get("phase") or "Unknown"
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("reason") == "SchedulingGated":
            reason = "SchedulingGated"
    initializing = False
    init_specs = {item["name"]: item for item in get(body, "spec.initContainers") or ()}
    for index, container in enumerate(status.get("initContainerStatuses") or ()):
        state = container.get("state") or {}
        ended = state.get("terminated")
        always = init_specs.get(container.get("name", ""), {}).get("restartPolicy") == "Always"
        if ended is not None and ended.get("exitCode") == 0:
            continue
        if always and container.get("started"):
            continue
        if ended is not None:
            reason = ended.get("reason") or (
                f"Signal:{ended['signal']}" if ended.get("signal") else f"ExitCode:{ended.get('exitCode')}"
            )
            reason = f"Init:{reason}"
        elif state.get("waiting", {}).get("reason", "PodInitializing") != "PodInitializing":
            reason = "Init:" + state["waiting"]["reason"]
        else:
            reason = f"Init:{index}/{len(init_specs)}"
        initializing = True
        break
    if not initializing:
        running = False
        for container in reversed(status.get("containerStatuses") or ()):
            state = container.get("state") or {}
            waiting, ended = state.get("waiting"), state.get("terminated")
            if waiting is not None and waiting.get("reason"):
                reason = waiting["reason"]
            elif ended is not None:
                reason = ended.get("reason") or (
                    f"Signal:{ended['signal']}"
                    if ended.get("signal")
                    else f"ExitCode:{ended.get('exitCode')}"
                )
            elif container.get("ready") and "running" in state:
                running = True
        if reason == "Completed" and running:
            ready = any(
                item.get("type") == "Ready" and item.get("status") == "True"
                for item in status.get("conditions") or ()
            )
            reason = "Running" if ready else "NotReady"
    if "deletionTimestamp" in body["metadata"]:
        if status.get("reason") == "NodeLost":
            return "Unknown"
        if status.get("phase") not in ("Succeeded", "Failed"):
            return "Terminating"
    return str(reason)


def _restarts(body: Json, now: datetime) -> str:
    total, last = 0, ""
    for container in get(body, "status.containerStatuses") or ():
        total += container.get("restartCount", 0)
        finished = get(container, "lastState.terminated.finishedAt") or ""
        last = max(last, finished)
    return f"{total} ({age(last, now)} ago)" if total and last else str(total)


def _gates(body: Json, now: datetime) -> str:
    gates = get(body, "spec.readinessGates") or ()
    if not gates:
        return NONE
    conditions = {item["type"]: item.get("status") for item in get(body, "status.conditions") or ()}
    return f"{sum(conditions.get(gate.get('conditionType')) == 'True' for gate in gates)}/{len(gates)}"


ROWS: dict[tuple[str, str], tuple[Row, ...]] = {
    ("", "pods"): (
        NAME,
        ("Ready", "string", 0, _pod_ready),
        ("Status", "string", 0, pod_status),
        ("Restarts", "string", 0, _restarts),
        AGE,
        ("IP", "string", 1, lambda body, now: get(body, "status.podIP") or NONE),
        ("Node", "string", 1, lambda body, now: get(body, "spec.nodeName") or NONE),
        ("Nominated Node", "string", 1, lambda body, now: get(body, "status.nominatedNodeName") or NONE),
        ("Readiness Gates", "string", 1, _gates),
    ),
}
