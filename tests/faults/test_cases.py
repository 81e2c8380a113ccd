"""That each case has a test, and each test of the index is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.faults.cases import CASES, ELSEWHERE, elsewhere, ids_of

TOP = Path(__file__).parents[2]


def named_in(path: Path) -> list[str]:
    tree = ast.parse(path.read_text())
    return [
        node.name
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test_")
    ]


@pytest.mark.quick
def test_what_is_said_to_be_elsewhere_is_there() -> None:
    for case, tests in ELSEWHERE.items():
        assert case in CASES, case
        for one in tests:
            file, _, name = one.partition("::")
            found = named_in(TOP / file)
            assert found, file
            assert not name or name in found, one


@pytest.mark.quick
def test_no_case_is_without_a_test() -> None:
    here = {
        case
        for file in Path(__file__).parent.glob("test_*.py")
        for name in named_in(file)
        for case in ids_of(name)
    }
    assert here - set(CASES) == set(), "tests of cases that nobody describes"
    assert set(CASES) - here - set(ELSEWHERE) == set(), "cases without a test"


@pytest.mark.quick
def test_names_tell_their_cases() -> None:
    assert ids_of("test_f_e01_the_agent_is_killed") == ["F-E01"]
    assert ids_of("test_a10_a12_pods_that_it_makes") == ["A10", "A12"]
    assert ids_of("test_soak") == []
    assert elsewhere("tests/unit/test_fuzz.py::test_a_target_reads_its_seeds[hub]") == ["M10"]


# -- A20


_SHELLS = {"sh", "bash", "ash", "dash", "/bin/sh", "/bin/bash", "/usr/bin/env"}
_PACKAGES = ("beehive", "cloudcore", "edgecore", "devicetwin", "mappers", "deploy")


def shells(source: str) -> list[int]:
    """Lines at which a shell is started, or words for one are put together."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if re.search(r"(^|\.)(system|popen|create_subprocess_shell|getoutput|getstatusoutput)$", called):
                found.append(node.lineno)
            found += [
                key.value.lineno
                for key in node.keywords
                if key.arg == "shell"
                and not (isinstance(key.value, ast.Constant) and key.value.value is False)
            ]
        if isinstance(node, (ast.List, ast.Tuple)) and len(node.elts) > 1:
            first, *rest = node.elts
            is_shell = isinstance(first, ast.Constant) and first.value in _SHELLS
            # what is written here whole, or is the name of a constant of the module, came from nobody
            fixed = all(
                isinstance(one, ast.Constant) or (isinstance(one, ast.Name) and one.id.isupper())
                for one in rest
            )
            if is_shell and not fixed:
                found.append(node.lineno)
    return found


@pytest.mark.quick
def test_a20_no_shell_is_given_what_somebody_wrote() -> None:
    for package in _PACKAGES:
        for path in (TOP / package).rglob("*.py"):
            assert shells(path.read_text()) == [], path


@pytest.mark.quick
@pytest.mark.parametrize(
    "source",
    [
        "subprocess.run('ls ' + name, shell=True)",
        "os.system(name)",
        "await asyncio.create_subprocess_shell(name)",
        "run(['/bin/sh', '-c', f'tar {name}'])",
        "run(('bash', '-c', command))",
    ],
)
def test_a20_a_shell_is_seen(source: str) -> None:
    assert shells(source) if "await" not in source else shells(f"async def f():\n    {source}")
