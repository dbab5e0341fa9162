"""For all tests: caches of their own, and, on demand, no skipping but for the reasons that the README names."""

import collections
import gc
import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what it puts into the background with interruptions ignored, and processes pass that on: those that the
    # tests interrupt could not be.
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).parents[1]
SCRATCH = Path(tempfile.mkdtemp(prefix="cutpoint-tests-"))

# Set before anything under test is imported: a test never reads nor fills the caches of the person who runs it.
os.environ["CUTPOINT_CACHE"] = str(SCRATCH / "cache")
os.environ["KERAS_HOME"] = str(SCRATCH / "keras")

if os.environ.get("PYTEST_XDIST_WORKER"):
    # Several processes share the cores: more threads in each of them would only wait for one another.
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")

# They begin first, so that none of them is left for one process alone at the end; all others by how many tests they have.
LONGEST = ("test_families_mobile.py", "test_families_wide.py", "test_families_residual.py", "test_families_deep.py")

pytest_plugins = ["pytester"]


def pytest_unconfigure() -> None:
    """Remove the caches of this session."""
    shutil.rmtree(SCRATCH, ignore_errors=True)


def named_reasons(readme: str) -> list[str]:
    """The reasons for which a test may be skipped: the list under the README's heading "Skipped tests"."""
    section = re.search(r"^#+ [^\n]*skipped tests[^\n]*\n(.*?)(?=^#|\Z)", readme, re.M | re.S | re.I)
    return re.findall(r"^[-*] `(.+?)`", section[1], re.M) if section else []


def unnamed_reason(report: pytest.TestReport | pytest.CollectReport) -> str | None:
    """Why this report is a skip, or an expected failure, that may not be; None where it is neither, or where it may."""
    if not report.skipped or not os.environ.get("CUTPOINT_FORBID_SKIPS"):
        return None
    if hasattr(report, "wasxfail"):
        return f"xfail: {report.wasxfail}"
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    reason = reason.removeprefix("Skipped: ")
    readme = ROOT / "README.md"
    named = named_reasons(readme.read_text(encoding="utf-8")) if readme.exists() else []
    if os.environ.get("CUTPOINT_REALDATA"):
        named = [name for name in named if "CUTPOINT_REALDATA" not in name]
    return None if any(reason.startswith(name) for name in named) else reason


def fail_if_unnamed(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Turn a skip for a reason that the README does not name into a failure."""
    if reason := unnamed_reason(report):
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid} was skipped, and the README names no such reason: {reason}"
        report.__dict__.pop("wasxfail", None)


@pytest.fixture(scope="session", autouse=True)
def one_process_exports() -> Iterator[None]:
    """Artifacts are made in the test's own process: tests run side by side already, and a second one would load TensorFlow anew.

    What `pipeline.side_by_side` does with two is the matter of tests of its own.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.side_by_side.cores", lambda: 1)
        yield


@pytest.fixture(scope="module", autouse=True)
def memory_given_back() -> Iterator[None]:
    """Give back what a file's tests leave behind: after a thousand tests a process would else hold gigabytes of old graphs.

    Until then nothing older is looked at for garbage: with every package loaded, each look takes a quarter of a second, and
    an export, which has several, hardly more.
    """
    gc.freeze()
    # Looks are as frequent as the last one was short.
    gc.collect()
    yield
    gc.unfreeze()
    if memory := sys.modules.get("exporters.memory"):
        memory.give_back()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files whose tests take longest first."""
    tests = collections.Counter(item.path for item in items)
    ranks = {name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: (ranks.get(item.path.name, len(ranks)), -tests[item.path]))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    """Judge the skips of tests."""
    report = yield
    fail_if_unnamed(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report():
    """Judge the skips of whole files."""
    report = yield
    fail_if_unnamed(report)
    return report
