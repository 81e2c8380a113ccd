"""Which firewall rules a pod network left behind, and how to remove them.  Pure.

CNI DEL removes a pod's own rules.  Two kinds stay: those of pods whose DEL never ran (a machine that lost power, a
killed runtime), and the chains that the portmap plugin makes once for all pods.  The first carry the network's name in
their comment; the second are removed only when they were not there before the trial and no other rule needs them.

Source: containernetworking/plugins, pkg/ip/ipmasq_linux.go and plugins/meta/portmap/portmap.go."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection
from dataclasses import dataclass, field
from itertools import pairwise

# Family of nftables to the program that shows it as iptables has it.  The portmap plugin looks into both.
FAMILIES = {"ip": "iptables-save", "ip6": "ip6tables-save"}

# Chains that are made for one pod: masquerading, and host ports.
_POD_CHAIN = re.compile(r"CNI-(?:[0-9a-f]{24}|(?:DN|SN)-[0-9a-f]+)")

# Chains of the portmap plugin, with the one that holds a rule for each pod first.
SHARED_CHAINS = ("CNI-HOSTPORT-DNAT", "CNI-HOSTPORT-SETMARK", "CNI-HOSTPORT-MASQ")


@dataclass(slots=True)
class Table:
    """One table of `iptables-save`: its own chains (not the built-in ones) and its rules as arguments."""

    name: str
    chains: list[str] = field(default_factory=list)
    rules: list[list[str]] = field(default_factory=list)

    def rules_of(self, chain: str) -> list[list[str]]:
        return [rule for rule in self.rules if rule[0] == chain]


def parse_save(text: str) -> list[Table]:
    """Read `iptables-save`.  A rule is its chain, then its specification."""
    tables: list[Table] = []
    for line in text.splitlines():
        if line.startswith("*"):
            tables.append(Table(line[1:].strip()))
        elif line.startswith(":") and tables:
            name, policy = line[1:].split()[:2]
            if policy == "-":
                tables[-1].chains.append(name)
        elif line.startswith("-A ") and tables:
            tables[-1].rules.append(shlex.split(line)[1:])
    return tables


def own_chains(text: str) -> list[str]:
    """`table/chain` of every chain that is not built in."""
    return [f"{table.name}/{chain}" for table in parse_save(text) for chain in table.chains]


def plan_cleanup(save: str, network: str, before: Collection[str], bridge: str = "") -> list[list[str]]:
    """Arguments for `iptables`, in the order to run them, that remove what the network left.

    save: `iptables-save` as it is now; before: own_chains() as it was before the trial; bridge: the network's own, about which
    edgecore makes a rule.  Planning again after these have run gives nothing."""
    commands: list[list[str]] = []
    for table in parse_save(save):
        gone: list[list[str]] = []
        doomed: list[str] = []
        for rule in table.rules:
            if _is_of(rule, network) or (bridge and ("-i", bridge) in pairwise(rule)):
                gone.append(rule)
                target = _target(rule)
                if target.startswith("CNI-") and target not in SHARED_CHAINS and target in table.chains:
                    doomed.append(target)
        left = [rule for rule in table.rules if rule not in gone]
        shared = [
            chain
            for chain in SHARED_CHAINS
            if chain in table.chains and f"{table.name}/{chain}" not in before
        ]
        if shared and not any(rule[0] == SHARED_CHAINS[0] for rule in left):
            gone += [rule for rule in left if _target(rule) in shared and rule[0] not in doomed]
            doomed += shared
        doomed = list(dict.fromkeys(doomed))
        prefix = ["-w", "-t", table.name]
        commands += [[*prefix, "-D", *rule] for rule in gone if rule[0] not in doomed]
        commands += [[*prefix, "-F", chain] for chain in doomed]
        commands += [[*prefix, "-X", chain] for chain in doomed]
    return commands


def orphans(save: str, before: Collection[str]) -> set[str]:
    """`table/chain` of pods' chains that are empty and that nothing leads to, and that were not there before.

    The plugin that masquerades does not try again when another change of the firewall comes in between while it removes
    a pod's chain.  A chain also looks like this for a moment while a pod is made: only one that is still so at a second
    look may go."""
    found = set()
    for table in parse_save(save):
        targets = {_target(rule) for rule in table.rules}
        for chain in table.chains:
            if _POD_CHAIN.fullmatch(chain) and chain not in targets and not table.rules_of(chain):
                found.add(f"{table.name}/{chain}")
    return found - set(before)


def removal(orphan: str) -> list[str]:
    """Arguments for `iptables` that remove one of orphans(); it fails when the chain has come into use."""
    table, chain = orphan.split("/", 1)
    return ["-w", "-t", table, "-X", chain]


def empty_tables(family: str, save: str, before: Collection[str], now: Collection[str]) -> list[str]:
    """Tables of a family that appeared since `before` and hold no chain and no rule of anybody: they can go.

    family: ip or ip6; save: that family's `iptables-save`; before, now: parse_nft_tables()."""
    used = {f"{family} {table.name}" for table in parse_save(save) if table.chains or table.rules}
    return [name for name in now if name.startswith(f"{family} ") and name not in before and name not in used]


def parse_nft_tables(text: str) -> list[str]:
    """`family name` of the tables in `nft list tables` that iptables makes."""
    words = (line.split() for line in text.splitlines())
    return [" ".join(parts[1:]) for parts in words if len(parts) == 3 and parts[1] in FAMILIES]


def _is_of(rule: list[str], network: str) -> bool:
    return any(flag == "--comment" and f'name: "{network}" ' in value for flag, value in pairwise(rule))


def _target(rule: list[str]) -> str:
    for flag, value in pairwise(rule):
        if flag in {"-j", "-g"}:
            return value
    return ""
