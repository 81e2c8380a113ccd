"""What makes an object of a built-in kind unacceptable, as causes with the field they are about.  Pure.

`on_create` and `on_update` are called with defaulted objects.  Source: kubernetes, pkg/apis/*/validation, for the rules
that clients meet; the texts are those of the recordings in tests/vectors/apiserver."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from cloudcore.standalone import cron, quantity
from cloudcore.standalone.defaults import qos_class
from cloudcore.standalone.selectors import BadSelector, from_object
from cloudcore.standalone.status import (
    Cause,
    duplicate,
    forbidden_field,
    invalid_value,
    not_found_field,
    required,
    too_long,
    unsupported,
)
from cloudcore.standalone.store import Key

Json = dict[str, Any]

DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
DNS_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
DNS_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
QUALIFIED = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
ENV_NAME = re.compile(r"[ -<>-~]+")
CONFIG_KEY = re.compile(r"[-._a-zA-Z0-9]+")

LABEL_TEXT = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end "
    "with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
SUBDOMAIN_TEXT = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start "
    "and end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
DNS_1035_TEXT = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, "
    "and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is "
    "'[a-z]([-a-z0-9]*[a-z0-9])?')"
)
QUALIFIED_TEXT = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
    "character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
LABEL_VALUE_TEXT = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start "
    "and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation "
    "is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)

LABEL_NAMES: frozenset[Key] = frozenset({("", "namespaces")})
DNS_1035_NAMES: frozenset[Key] = frozenset({("", "services")})
PATH_NAMES = frozenset({"rbac.authorization.k8s.io"})
MAX_DATA_BYTES = 1024 * 1024
MAX_ANNOTATION_BYTES = 256 * 1024


def on_metadata(key: Key, metadata: Json, *, custom: bool = False) -> Iterator[Cause]:
    """Names, labels, annotations, finalizers and owners."""
    yield from _name(key, metadata)
    for field in ("labels", "annotations"):
        for name, value in (metadata.get(field) or {}).items():
            yield from _qualified(f"metadata.{field}", name if field == "labels" else name.lower())
            if field == "labels" and (len(value) > 63 or (value and not QUALIFIED.fullmatch(value))):
                yield invalid_value("metadata.labels", value, LABEL_VALUE_TEXT)
    if sum(len(n) + len(v) for n, v in (metadata.get("annotations") or {}).items()) > MAX_ANNOTATION_BYTES:
        yield too_long("metadata.annotations", MAX_ANNOTATION_BYTES)
    for name in metadata.get("finalizers") or ():
        if "/" not in name and name not in ("orphan", "foregroundDeletion", "kubernetes"):
            yield invalid_value(
                "metadata.finalizers",
                name,
                "name is neither a standard finalizer name nor is it fully qualified",
            )
    controllers = 0
    for index, owner in enumerate(metadata.get("ownerReferences") or ()):
        for field in ("apiVersion", "kind", "name", "uid"):
            if not owner.get(field):
                yield invalid_value(
                    f"metadata.ownerReferences[{index}].{field}",
                    owner.get(field, ""),
                    f"{field} must not be empty",
                )
        controllers += owner.get("controller") is True
    if controllers > 1:
        yield invalid_value(
            "metadata.ownerReferences", None, "Only one reference can have Controller set to true"
        )


def _name(key: Key, metadata: Json) -> Iterator[Cause]:
    name, field = metadata.get("name", ""), "metadata.name"
    if not name:
        yield required(field, "name or generateName is required")
    elif key[0] in PATH_NAMES:
        if name in (".", "..") or "/" in name or "%" in name:
            yield invalid_value(field, name, "may not contain '/' or '%'")
    elif key in DNS_1035_NAMES:
        if len(name) > 63:
            yield invalid_value(field, name, "must be no more than 63 characters")
        if not DNS_1035.fullmatch(name):
            yield invalid_value(field, name, DNS_1035_TEXT)
    elif key in LABEL_NAMES:
        if len(name) > 63:
            yield invalid_value(field, name, "must be no more than 63 characters")
        if not DNS_LABEL.fullmatch(name):
            yield invalid_value(field, name, LABEL_TEXT)
    else:
        if len(name) > 253:
            yield invalid_value(field, name, "must be no more than 253 characters")
        if not DNS_SUBDOMAIN.fullmatch(name):
            yield invalid_value(field, name, SUBDOMAIN_TEXT)


def _qualified(field: str, name: str) -> Iterator[Cause]:
    prefix, slash, last = name.rpartition("/")
    if slash and not DNS_SUBDOMAIN.fullmatch(prefix):
        yield invalid_value(field, name, f"prefix part {SUBDOMAIN_TEXT}")
    if not last:
        yield invalid_value(field, name, "name part must be non-empty")
    elif len(last) > 63:
        yield invalid_value(field, name, "name part must be no more than 63 bytes")
    if not QUALIFIED.fullmatch(last):
        yield invalid_value(field, name, QUALIFIED_TEXT)


def on_create(key: Key, body: Json) -> list[Cause]:
    """Everything wrong with a new object of a built-in kind, its metadata included."""
    causes = list(on_metadata(key, body["metadata"]))
    rule = _CREATE.get(key)
    if rule is not None:
        causes += rule(body)
    return causes


def on_update(key: Key, body: Json, old: Json) -> list[Cause]:
    """Everything wrong with replacing `old` by `body`."""
    causes = list(on_metadata(key, body["metadata"]))
    rule = _CREATE.get(key)
    if rule is not None:
        causes += rule(body)
    change = _UPDATE.get(key)
    if change is not None:
        causes += change(body, old)
    return causes


# pods ------------------------------------------------------------------------------------------------


def _pod(body: Json) -> Iterator[Cause]:
    spec = body.get("spec")
    if not isinstance(spec, dict):
        yield required("spec.containers")
        return
    yield from pod_spec(spec, "spec")


def pod_spec(
    spec: Json,
    path: str,
    *,
    restart: tuple[str, ...] = ("Always", "OnFailure", "Never"),
    claims: Iterable[str] = (),
) -> Iterator[Cause]:
    """`claims`: volumes that the pods will have beside those written here."""
    volumes: set[str] = set()
    for index, volume in enumerate(spec.get("volumes") or ()):
        name, at = volume.get("name", ""), f"{path}.volumes[{index}]"
        if not name:
            yield required(f"{at}.name")
        elif not DNS_LABEL.fullmatch(name) or len(name) > 63:
            yield invalid_value(f"{at}.name", name, LABEL_TEXT)
        elif name in volumes:
            yield duplicate(f"{at}.name", name)
        volumes.add(name)
        if len([source for source in volume if source != "name"]) > 1:
            yield forbidden_field(at, "may not specify more than 1 volume type")
    volumes.update(claims)
    if not spec.get("containers"):
        yield required(f"{path}.containers")
    names: set[str] = set()
    for group in ("containers", "initContainers", "ephemeralContainers"):
        for index, container in enumerate(spec.get(group) or ()):
            yield from _container(container, f"{path}.{group}[{index}]", volumes, names)
    policy = spec.get("restartPolicy")
    if policy not in restart:
        yield unsupported(f"{path}.restartPolicy", policy, restart)
    dns = spec.get("dnsPolicy")
    if dns not in ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"):
        yield unsupported(
            f"{path}.dnsPolicy", dns, ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None")
        )
    yield from _sysctls(spec, f"{path}.securityContext.sysctls")
    if (spec.get("terminationGracePeriodSeconds") or 0) < 0:
        yield invalid_value(
            f"{path}.terminationGracePeriodSeconds",
            spec["terminationGracePeriodSeconds"],
            "must be greater than or equal to 0",
        )
    if spec.get("nodeName") and not DNS_SUBDOMAIN.fullmatch(spec["nodeName"]):
        yield invalid_value(f"{path}.nodeName", spec["nodeName"], SUBDOMAIN_TEXT)
    for index, toleration in enumerate(spec.get("tolerations") or ()):
        at = f"{path}.tolerations[{index}]"
        operator = toleration.get("operator", "Equal")
        if operator not in ("Equal", "Exists"):
            yield unsupported(f"{at}.operator", operator, ("Equal", "Exists"))
        if operator == "Exists" and toleration.get("value"):
            yield invalid_value(
                f"{at}.operator", toleration, "value must be empty when `operator` is 'Exists'"
            )
        if not toleration.get("key") and operator != "Exists":
            yield invalid_value(
                f"{at}.operator",
                operator,
                'operator must be Exists when `key` is empty, which means "match all values and all keys"',
            )


def _sysctls(spec: Json, path: str) -> Iterator[Cause]:
    """Source: pkg/apis/core/validation, validateSysctls."""
    seen: set[str] = set()
    for index, item in enumerate((spec.get("securityContext") or {}).get("sysctls") or ()):
        name, at = item.get("name", ""), f"{path}[{index}].name"
        dotted = name.replace("/", ".")
        if not name:
            yield required(at)
        elif len(name) > 253 or not SYSCTL.fullmatch(name):
            yield invalid_value(at, name, SYSCTL_TEXT)
        elif dotted in seen:
            yield duplicate(at, name)
        elif spec.get("hostNetwork") and dotted.startswith("net."):
            yield invalid_value(at, name, "may not be specified when 'hostNetwork' is true")
        elif spec.get("hostIPC") and dotted.startswith(
            ("kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue.")
        ):
            yield invalid_value(at, name, "may not be specified when 'hostIPC' is true")
        seen.add(dotted)


def _container(container: Json, path: str, volumes: set[str], names: set[str]) -> Iterator[Cause]:
    name = container.get("name", "")
    if not name:
        yield required(f"{path}.name")
    elif not DNS_LABEL.fullmatch(name) or len(name) > 63:
        yield invalid_value(f"{path}.name", name, LABEL_TEXT)
    elif name in names:
        yield duplicate(f"{path}.name", name)
    names.add(name)
    if not container.get("image"):
        yield required(f"{path}.image")
    for index, port in enumerate(container.get("ports") or ()):
        at, number = f"{path}.ports[{index}]", port.get("containerPort", 0)
        if number == 0:
            yield required(f"{at}.containerPort")
        elif not 1 <= number <= 65535:
            yield invalid_value(f"{at}.containerPort", number, "must be between 1 and 65535, inclusive")
        if not 0 <= port.get("hostPort", 0) <= 65535:
            yield invalid_value(f"{at}.hostPort", port["hostPort"], "must be between 1 and 65535, inclusive")
        if port.get("protocol") not in ("TCP", "UDP", "SCTP"):
            yield unsupported(f"{at}.protocol", port.get("protocol"), ("SCTP", "TCP", "UDP"))
    for index, variable in enumerate(container.get("env") or ()):
        at = f"{path}.env[{index}]"
        if not variable.get("name"):
            yield required(f"{at}.name")
        elif not ENV_NAME.fullmatch(variable["name"]):
            yield invalid_value(
                f"{at}.name", variable["name"], "a valid environment variable name is printable ASCII"
            )
        source = variable.get("valueFrom")
        if source is not None:
            if variable.get("value"):
                yield invalid_value(f"{at}.valueFrom", "", "may not be specified when `value` is not empty")
            if len(source) != 1:
                yield invalid_value(
                    f"{at}.valueFrom",
                    "",
                    "must specify one of: `fieldRef`, `resourceFieldRef`, "
                    "`configMapKeyRef` or `secretKeyRef`",
                )
    mounted: set[str] = set()
    for index, mount in enumerate(container.get("volumeMounts") or ()):
        at = f"{path}.volumeMounts[{index}]"
        if not mount.get("name"):
            yield required(f"{at}.name")
        elif mount["name"] not in volumes:
            yield not_found_field(f"{at}.name", mount["name"])
        where = mount.get("mountPath", "")
        if not where:
            yield required(f"{at}.mountPath")
        elif where in mounted:
            yield invalid_value(f"{at}.mountPath", where, "must be unique")
        mounted.add(where)
        sub = mount.get("subPath", "")
        if sub.startswith("/"):
            yield invalid_value(f"{at}.subPath", sub, "must be a relative path")
        if ".." in sub.split("/"):
            yield invalid_value(f"{at}.subPath", sub, "must not contain '..'")
    for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
        if container.get(probe) is not None:
            yield from _probe(container[probe], f"{path}.{probe}", liveness=probe != "readinessProbe")
    if container.get("imagePullPolicy") not in ("Always", "IfNotPresent", "Never"):
        yield unsupported(
            f"{path}.imagePullPolicy", container.get("imagePullPolicy"), ("Always", "IfNotPresent", "Never")
        )
    limits = (container.get("resources") or {}).get("limits") or {}
    requests = (container.get("resources") or {}).get("requests") or {}
    for kind, amounts in (("limits", limits), ("requests", requests)):
        for name, amount in amounts.items():
            if quantity.parse(amount) < 0:
                yield invalid_value(
                    f"{path}.resources.{kind}[{name}]", amount, "must be greater than or equal to 0"
                )
    for name, amount in requests.items():
        if name in limits and quantity.parse(amount) > quantity.parse(limits[name]):
            yield invalid_value(
                f"{path}.resources.requests",
                amount,
                f"must be less than or equal to {name} limit of {limits[name]}",
            )


def _probe(probe: Json, path: str, *, liveness: bool) -> Iterator[Cause]:
    actions = [name for name in ("exec", "httpGet", "tcpSocket", "grpc") if probe.get(name) is not None]
    if not actions:
        yield required(path, "must specify a handler type")
    if len(actions) > 1:
        yield forbidden_field(f"{path}.{actions[1]}", "may not specify more than 1 handler type")
    for name in (
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
    ):
        if probe.get(name, 0) < 0:
            yield invalid_value(f"{path}.{name}", probe[name], "must be greater than or equal to 0")
    if liveness and probe.get("successThreshold", 1) != 1:
        yield invalid_value(f"{path}.successThreshold", probe["successThreshold"], "must be 1")
    get = probe.get("httpGet")
    if get is not None:
        port = get.get("port")
        if isinstance(port, int) and not 1 <= port <= 65535:
            yield invalid_value(f"{path}.httpGet.port", port, "must be between 1 and 65535, inclusive")
    if probe.get("exec") is not None and not probe["exec"].get("command"):
        yield required(f"{path}.exec.command")


SYSCTL = re.compile(r"([a-z0-9]([-_a-z0-9]*[a-z0-9])?[./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?")
SYSCTL_TEXT = (
    "must have at most 253 characters and match regex "
    r"^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$"
)

POD_UPDATE_TEXT = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)


def _pod_update(body: Json, old: Json) -> Iterator[Cause]:
    new_spec, old_spec = copy.deepcopy(body.get("spec") or {}), copy.deepcopy(old.get("spec") or {})
    for spec in (new_spec, old_spec):
        spec.pop("activeDeadlineSeconds", None)
        spec.pop("ephemeralContainers", None)
        for group in ("containers", "initContainers"):
            for container in spec.get(group) or ():
                container.pop("image", None)
    kept = old_spec.pop("tolerations", None) or []
    given = new_spec.pop("tolerations", None) or []
    gates = old_spec.pop("schedulingGates", None) or []
    new_gates = new_spec.pop("schedulingGates", None) or []
    if any(gate not in gates for gate in new_gates):
        yield forbidden_field(
            "spec.schedulingGates", "only deletion is allowed, but found new scheduling gates"
        )
    if any(item not in given for item in kept):
        yield forbidden_field(
            "spec.tolerations", "existing toleration can not be modified except its tolerationSeconds"
        )
    if gates:
        for spec in (new_spec, old_spec):
            spec.pop("nodeSelector", None)
            spec.pop("affinity", None)
    if new_spec != old_spec:
        yield forbidden_field("spec", POD_UPDATE_TEXT)


def on_resize(body: Json, old: Json) -> list[Cause]:
    """Why a pod cannot be resized so in place.  Source: pkg/apis/core/validation, ValidatePodResize."""
    before, after = old.get("spec") or {}, body.get("spec") or {}
    causes = list(_pod(body))
    quality = qos_class(before)
    if qos_class(after) != quality:
        causes.append(invalid_value("spec", quality, "Pod QOS Class may not change as a result of resizing"))
    if _without_amounts(before) != _without_amounts(after):
        causes.append(forbidden_field("spec", "only cpu and memory resources are mutable"))
    limited = {item.get("name") for item in before.get("containers") or () if item.get("resources")}
    shown = (old.get("status") or {}).get("containerStatuses") or ()
    if any(item.get("name") in limited and item.get("resources") is None for item in shown):
        causes.append(forbidden_field("spec", "Pod running on node without support for resize"))
    return causes


def _without_amounts(spec: Json) -> Json:
    """A pod's spec without what a resize may change."""
    left = copy.deepcopy(spec)
    for group in ("containers", "initContainers"):
        for container in left.get(group) or ():
            for amounts in (container.get("resources") or {}).values():
                if isinstance(amounts, dict):
                    amounts.pop("cpu", None)
                    amounts.pop("memory", None)
    return left


# workloads -------------------------------------------------------------------------------------------


def _workload(body: Json) -> Iterator[Cause]:
    spec = body["spec"]
    if spec.get("replicas", 0) < 0:
        yield invalid_value("spec.replicas", spec["replicas"], "must be greater than or equal to 0")
    yield from _selector(spec)
    template = spec.get("template") or {}
    if not isinstance(template.get("spec"), dict):
        yield required("spec.template.spec.containers")
    else:
        claims = [
            (claim.get("metadata") or {}).get("name", "") for claim in spec.get("volumeClaimTemplates") or ()
        ]
        yield from pod_spec(template["spec"], "spec.template.spec", restart=("Always",), claims=claims)
    for field in ("minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"):
        if (spec.get(field) or 0) < 0:
            yield invalid_value(f"spec.{field}", spec[field], "must be greater than or equal to 0")


def _selector(spec: Json) -> Iterator[Cause]:
    selector = spec.get("selector")
    labels = (spec.get("template") or {}).get("metadata", {}).get("labels") or {}
    if selector is None:
        yield required("spec.selector")
        yield invalid_value(
            "spec.template.metadata.labels", labels or None, "`selector` does not match template `labels`"
        )
        return
    if not selector:
        yield invalid_value("spec.selector", selector, "empty selector is invalid for deployment")
        return
    try:
        parsed = from_object(selector)
    except BadSelector as error:
        yield invalid_value("spec.selector", selector, str(error))
        return
    if parsed is not None and not parsed.matches(labels):
        yield invalid_value(
            "spec.template.metadata.labels", labels, "`selector` does not match template `labels`"
        )


def _deployment(body: Json) -> Iterator[Cause]:
    yield from _workload(body)
    strategy = body["spec"].get("strategy") or {}
    if strategy.get("type") not in ("Recreate", "RollingUpdate"):
        yield unsupported("spec.strategy.type", strategy.get("type"), ("Recreate", "RollingUpdate"))
    if strategy.get("type") == "Recreate" and strategy.get("rollingUpdate"):
        yield forbidden_field(
            "spec.strategy.rollingUpdate", "may not be specified when strategy `type` is 'Recreate'"
        )
    rolling = strategy.get("rollingUpdate") or {}
    for field in ("maxSurge", "maxUnavailable"):
        value = rolling.get(field, 0)
        if isinstance(value, str) and not re.fullmatch(r"[0-9]+%", value):
            yield invalid_value(
                f"spec.strategy.rollingUpdate.{field}",
                value,
                "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', "
                "regex used for validation is '[0-9]+%')",
            )
        elif isinstance(value, int) and value < 0:
            yield invalid_value(
                f"spec.strategy.rollingUpdate.{field}", value, "must be greater than or equal to 0"
            )
    if rolling.get("maxSurge") in (0, "0%") and rolling.get("maxUnavailable") in (0, "0%"):
        yield invalid_value(
            "spec.strategy.rollingUpdate.maxUnavailable",
            rolling["maxUnavailable"],
            "may not be 0 when `maxSurge` is 0",
        )


def _selector_kept(body: Json, old: Json) -> Iterator[Cause]:
    if body["spec"].get("selector") != old["spec"].get("selector"):
        yield invalid_value("spec.selector", body["spec"].get("selector"), "field is immutable")


def _statefulset_update(body: Json, old: Json) -> Iterator[Cause]:
    free = (
        "replicas",
        "ordinals",
        "template",
        "updateStrategy",
        "revisionHistoryLimit",
        "persistentVolumeClaimRetentionPolicy",
        "minReadySeconds",
    )
    fixed = [{n: v for n, v in side["spec"].items() if n not in free} for side in (body, old)]
    if fixed[0] != fixed[1]:
        yield forbidden_field(
            "spec",
            "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', "
            "'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
        )


def _job(body: Json) -> Iterator[Cause]:
    spec = body["spec"]
    for field in (
        "parallelism",
        "completions",
        "backoffLimit",
        "activeDeadlineSeconds",
        "ttlSecondsAfterFinished",
    ):
        if (spec.get(field) or 0) < 0:
            yield invalid_value(f"spec.{field}", spec[field], "must be greater than or equal to 0")
    yield from _job_template(spec, "spec")


def _job_template(spec: Json, path: str) -> Iterator[Cause]:
    template = (spec.get("template") or {}).get("spec")
    if not isinstance(template, dict):
        yield required(f"{path}.template.spec.containers")
        return
    policy = template.get("restartPolicy")
    if policy not in ("OnFailure", "Never"):
        yield unsupported(f"{path}.template.spec.restartPolicy", policy, ("OnFailure", "Never"))
    yield from pod_spec(template, f"{path}.template.spec", restart=("Always", "OnFailure", "Never"))


def _job_update(body: Json, old: Json) -> Iterator[Cause]:
    for field in ("completions", "selector", "template", "completionMode"):
        if field == "template" and old["spec"].get("suspend"):
            continue
        if body["spec"].get(field) != old["spec"].get(field):
            yield invalid_value(f"spec.{field}", body["spec"].get(field), "field is immutable")


def _cronjob(body: Json) -> Iterator[Cause]:
    spec = body["spec"]
    schedule = spec.get("schedule", "")
    if not schedule:
        yield required("spec.schedule")
    else:
        try:
            cron.parse(schedule, spec.get("timeZone") or "")
        except cron.BadSchedule as error:
            zone = "time zone" in str(error)
            field, value = ("timeZone", spec.get("timeZone")) if zone else ("schedule", schedule)
            yield invalid_value(f"spec.{field}", value, str(error))
    if spec.get("concurrencyPolicy") not in ("Allow", "Forbid", "Replace"):
        yield unsupported(
            "spec.concurrencyPolicy", spec.get("concurrencyPolicy"), ("Allow", "Forbid", "Replace")
        )
    yield from _job_template(spec["jobTemplate"]["spec"], "spec.jobTemplate.spec")


def _cronjob_update(body: Json, old: Json) -> Iterator[Cause]:
    if any(body["spec"].get(name) != old["spec"].get(name) for name in ("schedule", "timeZone")):
        yield from _cronjob(body)


# the rest --------------------------------------------------------------------------------------------


def _data(body: Json) -> Iterator[Cause]:
    total = 0
    for group in ("data", "binaryData"):
        for name, value in (body.get(group) or {}).items():
            total += len(value.encode())
            if not CONFIG_KEY.fullmatch(name) or len(name) > 253 or name in (".", ".."):
                yield invalid_value(
                    f"{group}[{name}]",
                    name,
                    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  "
                    "or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
                )
    if total > MAX_DATA_BYTES:
        yield too_long("[]", MAX_DATA_BYTES)


SECRET_KEYS = {
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
}


def _secret(body: Json) -> Iterator[Cause]:
    yield from _data(body)
    data = body.get("data") or {}
    for name in SECRET_KEYS.get(body.get("type", ""), ()):
        if name not in data:
            yield required(f"data[{name}]")


def _immutable_data(body: Json, old: Json) -> Iterator[Cause]:
    if old.get("immutable"):
        if not body.get("immutable"):
            yield forbidden_field("immutable", "field is immutable when `immutable` is set")
        for field in ("data", "binaryData"):
            if (body.get(field) or {}) != (old.get(field) or {}):
                yield forbidden_field(field, "field is immutable when `immutable` is set")


def _handler_kept(body: Json, old: Json) -> Iterator[Cause]:
    if body.get("handler") != old.get("handler"):
        yield invalid_value("handler", body.get("handler"), "field is immutable")


def _secret_update(body: Json, old: Json) -> Iterator[Cause]:
    if body.get("type") != old.get("type"):
        yield invalid_value("type", body.get("type"), "field is immutable")
    yield from _immutable_data(body, old)


def _service(body: Json) -> Iterator[Cause]:
    spec = body["spec"]
    if spec.get("type") not in ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort"):
        yield unsupported(
            "spec.type", spec.get("type"), ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
        )
    ports = spec.get("ports") or []
    if not ports and spec.get("clusterIP") != "None" and spec.get("type") != "ExternalName":
        yield required("spec.ports")
    if spec.get("type") == "ExternalName" and not spec.get("externalName"):
        yield required("spec.externalName")
    names: set[str] = set()
    for index, port in enumerate(ports):
        at = f"spec.ports[{index}]"
        name = port.get("name", "")
        if not name and len(ports) > 1:
            yield required(f"{at}.name")
        elif name and name in names:
            yield duplicate(f"{at}.name", name)
        names.add(name)
        if not 1 <= port.get("port", 0) <= 65535:
            yield invalid_value(f"{at}.port", port.get("port", 0), "must be between 1 and 65535, inclusive")
        target = port.get("targetPort", port.get("port", 0))
        if isinstance(target, int) and not 1 <= target <= 65535:
            yield invalid_value(f"{at}.targetPort", target, "must be between 1 and 65535, inclusive")
        if port.get("protocol") not in ("TCP", "UDP", "SCTP"):
            yield unsupported(f"{at}.protocol", port.get("protocol"), ("SCTP", "TCP", "UDP"))


def _service_update(body: Json, old: Json) -> Iterator[Cause]:
    before, after = old["spec"].get("clusterIP"), body["spec"].get("clusterIP")
    if before and before != after and old["spec"].get("type") != "ExternalName":
        yield invalid_value("spec.clusterIPs[0]", [after] if after else None, "may not change once set")


def _lease(body: Json) -> Iterator[Cause]:
    spec = body.get("spec") or {}
    for field in ("leaseDurationSeconds",):
        if field in spec and spec[field] <= 0:
            yield invalid_value(f"spec.{field}", spec[field], "must be greater than 0")
    if spec.get("leaseTransitions", 0) < 0:
        yield invalid_value(
            "spec.leaseTransitions", spec["leaseTransitions"], "must be greater than or equal to 0"
        )


def _node(body: Json) -> Iterator[Cause]:
    for index, taint in enumerate(body.get("spec", {}).get("taints") or ()):
        at = f"spec.taints[{index}]"
        yield from _qualified(f"{at}.key", taint.get("key", ""))
        if taint.get("effect") not in ("NoSchedule", "PreferNoSchedule", "NoExecute"):
            yield unsupported(
                f"{at}.effect", taint.get("effect"), ("NoSchedule", "PreferNoSchedule", "NoExecute")
            )


def _role_ref(body: Json) -> Iterator[Cause]:
    ref = body.get("roleRef") or {}
    if not ref.get("name"):
        yield required("roleRef.name")
    if ref.get("kind") not in ("Role", "ClusterRole"):
        yield unsupported("roleRef.kind", ref.get("kind"), ("Role", "ClusterRole"))
    for index, subject in enumerate(body.get("subjects") or ()):
        if subject.get("kind") not in ("ServiceAccount", "User", "Group"):
            yield unsupported(
                f"subjects[{index}].kind", subject.get("kind"), ("ServiceAccount", "User", "Group")
            )
        if not subject.get("name"):
            yield required(f"subjects[{index}].name")


def _role_ref_kept(body: Json, old: Json) -> Iterator[Cause]:
    if body.get("roleRef") != old.get("roleRef"):
        yield invalid_value("roleRef", body.get("roleRef"), "cannot change roleRef")


def _csr(body: Json) -> Iterator[Cause]:
    import base64
    import binascii

    request = (body.get("spec") or {}).get("request", "")
    try:
        text = base64.b64decode(request, validate=True)
    except (binascii.Error, ValueError):
        text = b""
    if b"BEGIN CERTIFICATE REQUEST" not in text:
        yield invalid_value("spec.request", request, "PEM block type must be CERTIFICATE REQUEST")
    if not (body.get("spec") or {}).get("signerName"):
        yield required("spec.signerName")


def _definition(body: Json) -> Iterator[Cause]:
    spec = body["spec"]
    names = spec.get("names") or {}
    group, plural = spec.get("group", ""), names.get("plural", "")
    if not group:
        yield required("spec.group")
    if not plural:
        yield required("spec.names.plural")
    if not names.get("kind"):
        yield required("spec.names.kind")
    if group and plural and body["metadata"].get("name") != f"{plural}.{group}":
        yield invalid_value(
            "metadata.name", body["metadata"].get("name"), 'must be spec.names.plural+"."+spec.group'
        )
    if spec.get("scope") not in ("Cluster", "Namespaced"):
        yield unsupported("spec.scope", spec.get("scope", ""), ("Cluster", "Namespaced"))
    versions = spec.get("versions") or []
    if not versions:
        yield required("spec.versions", "must have exactly one version marked as storage version")
    elif sum(version.get("storage") is True for version in versions) != 1:
        yield invalid_value(
            "spec.versions",
            [v.get("name") for v in versions],
            "must have exactly one version marked as storage version",
        )
    seen: set[str] = set()
    for index, version in enumerate(versions):
        at = f"spec.versions[{index}]"
        name = version.get("name", "")
        if not DNS_1035.fullmatch(name):
            yield invalid_value(f"{at}.name", name, DNS_1035_TEXT)
        if name in seen:
            yield duplicate(f"{at}.name", name)
        seen.add(name)
        schema = (version.get("schema") or {}).get("openAPIV3Schema")
        if not isinstance(schema, dict):
            yield required(f"{at}.schema.openAPIV3Schema", "schemas are required")
        elif schema.get("type") != "object":
            yield invalid_value(
                f"{at}.schema.openAPIV3Schema.type", schema.get("type", ""), "must be object at the root"
            )
    strategy = (spec.get("conversion") or {}).get("strategy")
    if strategy not in ("None", "Webhook"):
        yield unsupported("spec.conversion.strategy", strategy, ("None", "Webhook"))


def _definition_update(body: Json, old: Json) -> Iterator[Cause]:
    for path in (("group",), ("scope",), ("names", "kind"), ("names", "plural")):
        new_value: Any = body["spec"]
        old_value: Any = old["spec"]
        for part in path:
            new_value, old_value = new_value.get(part), old_value.get(part)
        if new_value != old_value:
            yield invalid_value("spec." + ".".join(path), new_value, "field is immutable")


def _autoscaler(body: Json) -> Iterator[Cause]:
    spec = body.get("spec") or {}
    least, most = spec.get("minReplicas", 1), spec.get("maxReplicas", 0)
    reference = spec.get("scaleTargetRef") or {}
    for name in ("kind", "name"):
        if not reference.get(name):
            yield required(f"spec.scaleTargetRef.{name}")
    if least < 1:
        yield invalid_value("spec.minReplicas", least, "must be greater than or equal to 1")
    if most < 1:
        yield invalid_value("spec.maxReplicas", most, "must be greater than 0")
    elif most < least:
        yield invalid_value("spec.maxReplicas", most, "must be greater than or equal to `minReplicas`")


def _autoscaler_update(body: Json, old: Json) -> Iterator[Cause]:
    yield from _autoscaler(body)


def _claim(body: Json) -> Iterator[Cause]:
    spec = body["spec"]
    if not spec.get("accessModes"):
        yield required("spec.accessModes", "at least 1 access mode is required")
    storage = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    if storage is None:
        yield required("spec.resources[storage]")
    elif quantity.parse(storage) <= 0:
        yield invalid_value("spec.resources[storage]", storage, "must be greater than zero")


def _claim_update(body: Json, old: Json) -> Iterator[Cause]:
    """Its size may grow, and it is bound once."""
    kept = ("resources", "volumeName", "volumeAttributesClassName")
    new_spec, old_spec = body["spec"], old["spec"]
    changed = {n: v for n, v in new_spec.items() if n not in kept} != {
        n: v for n, v in old_spec.items() if n not in kept
    }
    if changed or old_spec.get("volumeName") not in (None, "", new_spec.get("volumeName")):
        yield forbidden_field(
            "spec",
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims",
        )


_APPS = "apps"
_RBAC = "rbac.authorization.k8s.io"
_CREATE: dict[Key, Callable[[Json], Iterator[Cause]]] = {
    ("", "pods"): _pod,
    (_APPS, "deployments"): _deployment,
    (_APPS, "replicasets"): _workload,
    (_APPS, "daemonsets"): _workload,
    (_APPS, "statefulsets"): _workload,
    ("batch", "jobs"): _job,
    ("batch", "cronjobs"): _cronjob,
    ("", "configmaps"): _data,
    ("", "secrets"): _secret,
    ("", "services"): _service,
    ("", "nodes"): _node,
    ("coordination.k8s.io", "leases"): _lease,
    (_RBAC, "rolebindings"): _role_ref,
    (_RBAC, "clusterrolebindings"): _role_ref,
    ("", "persistentvolumeclaims"): _claim,
    ("autoscaling", "horizontalpodautoscalers"): _autoscaler,
    ("certificates.k8s.io", "certificatesigningrequests"): _csr,
    ("apiextensions.k8s.io", "customresourcedefinitions"): _definition,
}
_UPDATE: dict[Key, Callable[[Json, Json], Iterator[Cause]]] = {
    ("", "pods"): _pod_update,
    (_APPS, "deployments"): _selector_kept,
    (_APPS, "replicasets"): _selector_kept,
    (_APPS, "daemonsets"): _selector_kept,
    (_APPS, "statefulsets"): _statefulset_update,
    ("batch", "jobs"): _job_update,
    ("batch", "cronjobs"): _cronjob_update,
    ("node.k8s.io", "runtimeclasses"): _handler_kept,
    ("", "configmaps"): _immutable_data,
    ("", "secrets"): _secret_update,
    ("", "services"): _service_update,
    ("", "persistentvolumeclaims"): _claim_update,
    ("autoscaling", "horizontalpodautoscalers"): _autoscaler_update,
    (_RBAC, "rolebindings"): _role_ref_kept,
    (_RBAC, "clusterrolebindings"): _role_ref_kept,
    ("apiextensions.k8s.io", "customresourcedefinitions"): _definition_update,
}
