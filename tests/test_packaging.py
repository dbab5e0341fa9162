"""What is shipped and how it is installed: locks, version, Makefile, workflow, and the rule on skipped tests."""

import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
LOCKS = ["requirements.lock", "requirements-gpu.lock"]
TARGETS = {
    *("help", "setup", "setup-browser", "export", "verify", "demo", "test", "test-all", "bench", "screenshots"),
    *("lint", "backbone", "readme", "wheel", "lock", "clean"),
}


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def entries(lock: str) -> dict[str, str]:
    """`name==version ; marker` -> everything that belongs to it, of a lock in pip's format."""
    lines = [line for line in read(lock).splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return {line.split("--hash")[0].strip(): line for line in joined.splitlines()}


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):(?!=)", read("Makefile"), re.MULTILINE))


def workflow_commands() -> list[str]:
    jobs = yaml.safe_load(read(".github/workflows/ci.yml"))["jobs"]
    return [step["run"].strip() for job in jobs.values() for step in job["steps"] if "run" in step]


@pytest.mark.parametrize("lock", LOCKS)
def test_every_locked_package_is_pinned_and_hashed(lock: str) -> None:
    found = entries(lock)
    assert len(found) > 5
    for requirement, line in found.items():
        assert re.match(r"[a-z0-9._-]+==[0-9][^ ]*( ; .+)?$", requirement), requirement
        assert re.search(r"--hash=sha256:[0-9a-f]{64}\b", line), requirement


@pytest.mark.parametrize("lock", LOCKS)
def test_the_lock_names_no_address(lock: str) -> None:
    assert not re.search(r"://|--(extra-)?index-url|--find-links|--trusted-host| @ ", read(lock))


def test_the_node_lock_names_no_address() -> None:
    packages = json.loads(read("web_demo/package-lock.json"))["packages"]
    assert len(packages) > 5
    assert not [name for name, package in packages.items() if "resolved" in package]
    assert not [name for name, package in packages.items() if name and "integrity" not in package]


def test_the_locks_do_not_disagree() -> None:
    names = [{line.split("==")[0] for line in entries(lock)} for lock in LOCKS]
    assert not names[0] & names[1]


def test_every_dependency_is_locked() -> None:
    project = tomllib.loads(read("pyproject.toml"))
    extras = project["project"]["optional-dependencies"]
    wanted = project["project"]["dependencies"] + extras["train"] + extras["keras"]
    wanted += project["dependency-groups"]["dev"] + ["tensorflowjs"]
    # An extra may name another of the project's own.
    wanted = [requirement for requirement in wanted if not requirement.startswith("cutpoint[")]
    locked = {line.split("==")[0] for line in entries("requirements.lock")}
    assert {re.match(r"[\w.-]+", requirement)[0] for requirement in wanted} <= locked


def test_the_light_installation_has_no_trainer() -> None:
    project = tomllib.loads(read("pyproject.toml"))["project"]
    names = {re.match(r"[\w.-]+", requirement)[0] for requirement in project["dependencies"]}
    assert not names & {"tensorflow", "keras", "tensorflowjs", "tf2onnx", "matplotlib", "h5py"}


def test_the_version_is_written_once() -> None:
    version = tomllib.loads(read("pyproject.toml"))["project"]["version"]
    sources = [*ROOT.glob("pipeline/**/*.py"), *ROOT.glob("exporters/**/*.py"), ROOT / "web_demo" / "package.json"]
    assert not [str(path) for path in sources if f'"{version}"' in path.read_text(encoding="utf-8")]


def test_help_lists_every_target() -> None:
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {line.split()[0] for line in listed.splitlines() if line.startswith("  ")} == TARGETS
    assert make_targets() >= TARGETS


def test_the_workflow_calls_only_make() -> None:
    commands = workflow_commands()
    summary = 'cat runs/quickstart/report.md >> "$GITHUB_STEP_SUMMARY"'
    assert summary in commands
    for command in commands:
        if command != summary:
            program, *targets = command.split()
            assert program == "make", command
            assert set(targets) <= make_targets(), command


def test_the_workflow_runs_every_supported_python() -> None:
    job = yaml.safe_load(read(".github/workflows/ci.yml"))["jobs"]["test"]
    assert job["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13"]
    assert tomllib.loads(read("pyproject.toml"))["project"]["requires-python"] == ">=3.11,<3.14"


@pytest.mark.parametrize(
    ("skip", "environment", "outcome"),
    [
        ("pytest.skip('no such thing')", {}, {"skipped": 1}),
        ("pytest.skip('no such thing')", {"CUTPOINT_FORBID_SKIPS": "1"}, {"failed": 1}),
        ("pytest.xfail('not yet')", {"CUTPOINT_FORBID_SKIPS": "1"}, {"failed": 1}),
        ("pytest.skip('needs a moon: none here')", {"CUTPOINT_FORBID_SKIPS": "1"}, {"skipped": 1}),
        ("pytest.skip('CUTPOINT_REALDATA is not set')", {"CUTPOINT_FORBID_SKIPS": "1"}, {"skipped": 1}),
        (
            "pytest.skip('CUTPOINT_REALDATA is not set')",
            {"CUTPOINT_FORBID_SKIPS": "1", "CUTPOINT_REALDATA": "somewhere"},
            {"failed": 1},
        ),
    ],
)
def test_skips_fail_when_forbidden(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, skip: str, environment: dict, outcome: dict
) -> None:
    for name in ("CUTPOINT_FORBID_SKIPS", "CUTPOINT_REALDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    tests = pytester.mkdir("tests")
    named = "## Skipped tests\n- `needs a moon`: why\n- `CUTPOINT_REALDATA is not set`\n\n## Next\n- `no such thing`\n"
    (pytester.path / "README.md").write_text(named)
    (tests / "conftest.py").write_text(read("tests/conftest.py"))
    (tests / "test_it.py").write_text(f"import pytest\n\ndef test_it():\n    {skip}\n")
    pytester.runpytest_subprocess().assert_outcomes(**outcome)
