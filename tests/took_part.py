"""Which stores took part in the conformance suite: told at the end of a whole run, which fails if one is missing.

tests/conftest.py imports the hooks, so that they run in xdist's controller too.
"""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest

# Every store that a machine without servers, keys or containers can run; a class a way to reach it.
EXPECTED = {
    "test_chroma.py::TestChromaFolder",
    "test_chroma.py::TestChromaServer",
    "test_edge.py::TestEdge",
    "test_faiss.py::TestFaiss",
    "test_memory.py::TestMemory",
    "test_milvus.py::TestMilvusFile",
    "test_milvus.py::TestMilvusNetwork",
    "test_pgvector.py::TestPgvector",
    "test_pinecone.py::TestPinecone",
    "test_qdrant.py::TestQdrant",
    "test_qdrant.py::TestQdrantGRPC",
    "test_weaviate.py::TestWeaviate",
}
_FOLDER = "tests/stores/"
_outcomes: defaultdict[str, Counter[str]] = defaultdict(Counter)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    parts = report.nodeid.removeprefix(_FOLDER).split("::")
    if report.nodeid.startswith(_FOLDER) and len(parts) == 3 and (report.when == "call" or report.skipped):
        outcome = "gap" if hasattr(report, "wasxfail") else report.outcome
        _outcomes["::".join(parts[:2])][outcome] += 1


def _whole(config: pytest.Config) -> bool:
    chosen = config.option.keyword or config.option.markexpr or getattr(config.option, "lf", False)
    return config.args_source is pytest.Config.ArgsSource.TESTPATHS and not chosen and not config.option.collectonly


def _absent() -> list[str]:
    return sorted(name for name in EXPECTED if not _outcomes[name]["passed"])


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    # Workers of xdist see a part each; only the controller, or a run without it, sees all.
    if not hasattr(session.config, "workerinput") and _whole(session.config) and exitstatus == 0 and _absent():
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if not _whole(config):
        return
    from tools import docs

    terminalreporter.section("stores: what each declares, and the conformance suite's verdict")
    terminalreporter.write(docs.plain_matrix())
    for name in sorted(EXPECTED | set(_outcomes)):
        if name in EXPECTED or _outcomes[name]["skipped"]:
            told = ", ".join(f"{number} {outcome}" for outcome, number in sorted(_outcomes[name].items()) if number)
            terminalreporter.write_line(f"{name:44} {told or 'did not take part'}")
    if _absent():
        terminalreporter.write_line(f"expected, and did not take part: {', '.join(_absent())}", red=True)
