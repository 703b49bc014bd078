"""For all tests: no deadline, their order, and which share a worker when several run at once."""

from __future__ import annotations

import pytest
from hypothesis import settings

settings.register_profile("no-deadline", deadline=None)  # a busy machine is no failure
settings.load_profile("no-deadline")

# Engines of tests/engine that live for the whole run.
_SHARED_ENGINES = ("court", "server", "engine")


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests of a shared engine go to one worker, and so do those of a file, so that no engine is started twice."""
    files: dict[str, str] = {}
    for item in items:
        file = item.nodeid.partition("::")[0]
        asked = getattr(item, "fixturenames", ()) if file.startswith("tests/engine/") else ()
        shared = next((name for name in _SHARED_ENGINES if name in asked), file)
        if files.setdefault(file, shared) == file:
            files[file] = shared
    for item in items:
        item.add_marker(pytest.mark.xdist_group(files[item.nodeid.partition("::")[0]]))
    # What takes minutes comes first, so that no worker waits for another's at the end.
    engines = {item.nodeid.partition("::")[0] for item in items if item.get_closest_marker("engine")}
    items.sort(key=lambda item: item.nodeid.partition("::")[0] not in engines)
