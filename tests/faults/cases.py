"""What must be survived, by its id, and which tests elsewhere show it.

A case is a test of this folder that begins with its id (`test_f_c01_…`), or is named in `ELSEWHERE`: those are real tests of
other folders that show what the case asks.  `make faults` runs both; `test_cases.py` sees to it that none is without a test.

    python -m tests.faults.cases     prints the tests of `ELSEWHERE`
"""

from __future__ import annotations

import re

CASES = {
    # the hub and the API
    "F-C01": "the hub is killed in the middle of a sync",
    "F-C02": "the hub is killed before it has kept that an edge acknowledged",
    "F-C03": "pods crash while the hub is away",
    "F-C04": "of two hubs the one with all the edges is killed",
    "F-C05": "a node connects twice",
    "F-C07": "several hubs start together on an empty cluster",
    "F-C08": "the version that was watched from is gone",
    "F-C09": "the API asks to wait",
    "F-C10": "the API answers with errors, resets and torn answers",
    "F-C11": "the API cannot be reached",
    "F-C15": "a fleet comes back at once",
    # the agent and the runtime
    "F-E01": "the agent is killed again and again",
    "F-E02": "the agent is killed while it makes containers",
    "F-E03": "a reboot without a link",
    "F-E04": "containerd ends and comes back",
    "F-E06": "a shim is killed",
    "F-E08": "the agent is killed for want of memory",
    "F-E09": "the agent stands still",
    "F-E10": "an upgrade is killed halfway, or is not what it says",
    "F-E11": "a registry hangs, never ends or sends something else",
    # the disk
    "F-S01": "the power is cut",
    "F-S02": "a call to the disk fails",
    "F-S03": "the store is damaged",
    "F-S04": "the disk is full",
    "F-S05": "no more files can be made",
    "F-S06": "logs at debug",
    "F-S08": "each sync takes seconds",
    "F-S10": "a second agent on the same folder",
    # the line
    "F-N01": "a bad line and churn",
    "F-N02": "a report is sent and its acknowledgement is lost",
    "F-N03": "packets vanish in silence",
    "F-N05": "away for longer than a node may be silent",
    "F-N06": "pods or the node are deleted while it is away",
    "F-N09": "an address changes, of the node or the hub",
    "F-N10": "small packets, torn records, a proxy that gathers",
    # time and certificates
    "F-T01": "the node's certificate ends while it is away",
    "F-T02": "killed at each step of a renewal",
    "F-T03": "the authority is exchanged",
    "F-T05": "a clock steps",
    "F-T07": "tokens are expired, used twice or guessed",
    # a node that is somebody else's
    "A01": "a stolen join token",
    "A02": "a certificate of one node, and the name of another",
    "A03": "a signing request asks for more",
    "A05": "secrets of pods of another node",
    "A07": "volumes and claims of others",
    "A08": "account tokens for pods of others",
    "A09": "pods of another node",
    "A10": "pods that a node makes",
    "A11": "taints and labels that a node must not set",
    "A12": "a node deletes or gives away itself",
    "A14": "events of others, and a flood of them",
    "A15": "requests of applications that nobody granted",
    "A16": "devices of another node",
    "A18": "what a stranger on the network and a pod can reach",
    "A20": "texts that a shell would run",
    "A21": "archives that write elsewhere or unpack to a thousand times their size",
    "A23": "a hub that is none, or asks what this machine forbids",
    # what is malformed, too large or slow
    "M01": "a body without an end, everywhere",
    "M02": "a signing request that is too large, a frame that is too deep",
    "M03": "an answer without an end",
    "M04": "frames of gigabytes, of fragments, of compressed nothing",
    "M05": "wrong types everywhere",
    "M06": "a length that nothing stands behind",
    "M08": "a flood of tiny frames",
    "M09": "objects that cannot be meant",
    "M10": "decoders under fuzzing",
    # pods
    "P01": "sub-paths that lead out of their volume",
    "P02": "a sub-path that is exchanged while it is mounted",
    "P03": "links planted where a pod's folders are removed",
    "P04": "names that are no names",
    "P05": "kinds of volumes that are no more",
    "P06": "a pod fills the disk, through whatever file it may write",
    "P07": "a pod that must not be root, and tries",
    "P08": "a profile of seccomp or AppArmor that is not there",
    "P09": "a log that is a link",
    "P10": "an image that means harm",
    "P11": "floods of logs, lines without an end, and slow readers",
    "P13": "containers that are added with more rights",
    "P14": "bombs and hogs of processes, memory, CPU and files",
    "P16": "pods that this machine forbids",
    # devices
    "F-D01": "the broker is killed",
    "F-D02": "a mapper crashes, hangs, restarts",
    "F-D03": "thirty devices report a hundred times a second",
    "F-D05": "devices report while the cloud is away",
    "D02": "retained commands and subscriptions to everything",
    "D03": "packets that no library of MQTT sends",
    "D05": "a device that says what its model does not allow",
}

_LINK = "tests/integration/link"
_EDGED = "tests/integration/edged"

ELSEWHERE: dict[str, tuple[str, ...]] = {
    "F-C04": (
        f"{_LINK}/test_replicas.py::test_a_hub_that_is_killed_loses_and_doubles_nothing",
        f"{_LINK}/test_hardware.py::test_a_method_is_done_once_and_what_came_of_it_is_told",
    ),
    "F-C11": (f"{_LINK}/test_replicas.py::test_f_c11_while_the_api_is_away_edges_stay_and_nothing_is_lost",),
    "F-T03": ("tests/integration/edgecore/test_link.py::test_an_authority_that_is_over_is_not_trusted",),
    "A01": (
        f"{_LINK}/test_hub.py::test_a_token_for_one_joins_one_even_at_once",
        f"{_LINK}/test_hub.py::test_a_taken_name_needs_a_token_for_that_name",
    ),
    "A08": (f"{_LINK}/test_abuse.py::test_a08_a10_a11_a12_a14_what_a_node_may_not_do_it_cannot",),
    "A11": (f"{_LINK}/test_abuse.py::test_a08_a10_a11_a12_a14_what_a_node_may_not_do_it_cannot",),
    "A15": (
        "tests/integration/metaserver/test_hub.py::test_the_hub_asks_as_the_pods_account_and_as_nobody_else",
    ),
    "A16": (f"{_LINK}/test_devices.py::test_a_report_about_anothers_device_changes_nothing",),
    "A20": ("tests/unit/cloudcore/nodetasks/test_report.py",),
    "A21": ("tests/unit/cloudcore/standalone/test_backup.py",),
    "A23": (
        "tests/integration/edgecore/test_link.py::test_a_certificate_of_another_authority_is_not_trusted",
        "tests/integration/edgecore/test_link.py::test_a_nodes_certificate_does_not_pass_for_a_hubs",
        "tests/integration/edgecore/test_hostile_hub.py",
        f"{_EDGED}/test_while_running.py::test_this_machine_forbids_what_its_owner_says",
    ),
    "M02": (
        f"{_LINK}/test_abuse.py::test_m02_depth_and_m08_a_flood_end_one_link_at_most",
        f"{_LINK}/test_hub.py::test_before_joining_only_a_small_join_frame_is_welcome",
    ),
    "M03": ("tests/integration/edgecore/test_hostile_hub.py",),
    "M09": (f"{_LINK}/test_abuse.py::test_m09_poison_objects_hold_up_nobody",),
    "M10": ("tests/unit/test_fuzz.py",),
    "P01": (
        "tests/unit/edgecore/edged/test_podread.py::test_sub_paths_stay_inside",
        f"{_EDGED}/test_faults.py::test_a_hostile_volume_cannot_lead_a_removal_or_a_sub_path_astray",
    ),
    "P02": (
        "tests/unit/edgecore/edged/test_tree.py::test_a_sub_path_that_is_exchanged_meanwhile_leads_nowhere_else",
    ),
    "P03": (f"{_EDGED}/test_faults.py::test_a_hostile_volume_cannot_lead_a_removal_or_a_sub_path_astray",),
    "P04": (
        "tests/unit/edgecore/edged/test_podread.py::test_what_cannot_be_run_names_the_field",
        f"{_EDGED}/test_any_pods.py::test_odd_pods_are_told_why_and_keep_nobody_up",
    ),
    "P05": ("tests/unit/edgecore/edged/test_podread.py::test_what_cannot_be_run_names_the_field",),
    "P07": (f"{_EDGED}/test_hostile.py::test_no_odd_user_of_an_image_makes_a_non_root_pod_root",),
    "P08": (
        f"{_EDGED}/test_hostile.py::test_a_seccomp_profile_that_is_not_there_or_says_nothing_is_refused",
        "tests/unit/edgecore/edged/test_spec.py::test_what_a_kubelet_refuses",
    ),
    "P09": (
        "tests/unit/edgecore/edgestream/test_logs.py::test_links_pipes_and_paths_that_leave_are_not_opened",
    ),
    "P13": (f"{_EDGED}/test_while_running.py::test_this_machine_forbids_what_its_owner_says",),
    "P14": (f"{_EDGED}/test_housekeeping.py::test_a_fork_bomb_stays_in_its_pod",),
    "P16": (f"{_EDGED}/test_while_running.py::test_this_machine_forbids_what_its_owner_says",),
    "F-D03": (
        f"{_LINK}/test_devices.py::test_many_reports_are_few_writes_and_the_newest_stays",
        "tests/integration/devices/test_thermostat.py::test_many_devices_report_to_an_edgecore_of_either_kind",
    ),
    "D02": (
        "tests/integration/deploy/test_broker.py::test_nobody_without_an_account_and_no_account_beyond_its_device",
        "tests/integration/devices/test_eventbus.py::test_retained_requests_floods_and_giants_do_no_harm",
    ),
    "D03": ("tests/integration/deploy/test_broker.py::test_what_is_too_large_ends_its_sender_only",),
    "D05": (
        "tests/integration/devices/test_thermostat.py::test_what_a_hostile_mapper_says_is_refused",
        f"{_LINK}/test_devices.py::test_what_is_wrong_with_a_device_is_said_on_it",
    ),
}

_ID = re.compile(r"f_[a-z]\d\d|[a-z]\d\d")


def ids_of(name: str) -> list[str]:
    """`test_f_e01_the_agent…` → F-E01; `test_a10_a12_pods…` → A10, A12.  Empty for a test that is of no case."""
    found = []
    rest = name.removeprefix("test_")
    while (match := _ID.match(rest)) and rest[match.end() : match.end() + 1] in ("_", ""):
        found.append(match[0].upper().replace("_", "-"))
        rest = rest[match.end() + 1 :]
    return found


def elsewhere(nodeid: str) -> list[str]:
    """Ids of the cases that a test of another folder shows."""
    test = nodeid.split("[")[0]
    return [
        case
        for case, tests in ELSEWHERE.items()
        for one in tests
        if test == one or test.startswith(f"{one}::")
    ]


if __name__ == "__main__":
    print(*dict.fromkeys(test for tests in ELSEWHERE.values() for test in tests))
