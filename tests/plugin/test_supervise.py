"""What a supervised server leaves behind: a true exit code, and no process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

# Each says its process ids, then "ready". `helper` is what an engine is to a server.
SERVERS = {
    "polite": "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); serving(0); ready(); signal.pause()",
    "starting": "ready(); signal.pause()",
    "deaf": "signal.signal(signal.SIGTERM, signal.SIG_IGN); serving(0); ready(); signal.pause(); signal.pause()",
    "draining": """
        def drain(*_): time.sleep(1.5); print("drained", flush=True); sys.exit(0)
        signal.signal(signal.SIGTERM, drain); serving(60); ready(); signal.pause()""",
    "looking": """
        marker = os.path.join(tempfile.mkdtemp(), "draining")
        def end(*_): print("told", os.path.exists(marker), flush=True); sys.exit(0)
        signal.signal(signal.SIGTERM, end); serving(0, 0.2, marker); ready(); signal.pause()""",
    "unready": """
        marker = os.path.join(tempfile.mkdtemp(), "draining")
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); serving(0, 3600, marker); ready()
        while not os.path.exists(marker): time.sleep(0.01)
        say("unready"); signal.pause()""",
    "helped": "serving(0); helper(); ready(); os._exit(0)",
    "deaf helper": "serving(0); helper('signal.signal(signal.SIGTERM, signal.SIG_IGN);'); ready(); os._exit(3)",
    "returns": "serving(0); ready()",
    "help": "ready()",
    "fails": "serving(0); ready(); sys.exit(7)",
    "waits": "serving(0); ready(); signal.pause()",
}
PROGRAM = """
import os, signal, subprocess, sys, tempfile, textwrap, time
from trimtab.plugin.supervise import supervise

def say(word): print(word, flush=True)
def ready(): say("ready")
def helper(first=""):
    child = subprocess.Popen(
        [sys.executable, "-c", f"import signal; {first} print('up', flush=True); signal.pause(); signal.pause()"],
        stdout=subprocess.PIPE, start_new_session=True)
    child.stdout.readline()
    say(child.pid)
def serve(serving):
    say(os.getpid())
    exec(textwrap.dedent(sys.argv[1]), {**globals(), "serving": serving})
    return 0
sys.exit(supervise("program", serve, grace=float(sys.argv[2])))
"""


class Supervised:
    def __init__(self, server: str, grace: float = 60) -> None:
        command = [sys.executable, "-c", PROGRAM, SERVERS[server].strip("\n"), str(grace)]
        self.parent = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # Tests that run in the background may have been told to ignore it, and would hand that on.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        assert self.parent.stdout is not None
        words = iter(self.parent.stdout.readline, "ready\n")
        self.processes = [psutil.Process(int(word)) for word in words]

    def end(self, number: int | None = None) -> tuple[int, str, str]:
        """Exit code, stdout and stderr, of a supervisor that is sent a signal or none."""
        if number is not None:
            self.parent.send_signal(number)
        out, err = self.parent.communicate(timeout=120)
        return self.parent.returncode, out, err

    def left(self) -> list[psutil.Process]:
        return [process for process in self.processes if process.is_running()]


@pytest.fixture
def made() -> Iterator[list[Supervised]]:
    """What a test started; killed if the test fails."""
    started: list[Supervised] = []
    yield started
    for each in started:
        each.parent.kill()
        each.parent.wait()
        for process in each.left():
            process.kill()


@pytest.mark.parametrize("server", ["polite", "starting", "draining"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_0(server: str, number: int, made: list[Supervised]) -> None:
    made.append(Supervised(server, grace=0.5 if server == "draining" else 60))
    code, out, err = made[0].end(number)
    assert code == 0
    assert err == "" or number == signal.SIGINT  # these answer Ctrl-C with Python's own traceback
    assert ("drained" in out) == (server == "draining" and number == signal.SIGTERM)
    assert not made[0].left()


def test_it_is_unready_before_it_is_told_to_end(made: list[Supervised]) -> None:
    made.append(Supervised("looking"))
    assert made[0].end(signal.SIGTERM) == (0, "told True\n", "")
    assert not made[0].left()


def test_a_second_signal_ends_the_wait(made: list[Supervised]) -> None:
    made.append(Supervised("unready"))
    made[0].parent.send_signal(signal.SIGTERM)
    assert made[0].parent.stdout is not None
    assert made[0].parent.stdout.readline() == "unready\n"
    assert made[0].parent.poll() is None
    assert made[0].end(signal.SIGTERM)[0] == 0
    assert not made[0].left()


def test_what_does_not_heed_the_signal_is_killed(made: list[Supervised]) -> None:
    made.append(Supervised("deaf", grace=0.5))
    assert made[0].end(signal.SIGTERM) == (0, "", "program: it did not stop in time and is killed\n")
    assert not made[0].left()


@pytest.mark.parametrize(("server", "code"), [("helped", 1), ("deaf helper", 3)])
def test_no_process_outlives_it(server: str, code: int, made: list[Supervised]) -> None:
    made.append(Supervised(server))
    assert len(made[0].processes) == 2
    assert made[0].end()[0] == code
    assert not made[0].left()


@pytest.mark.parametrize(("server", "code", "message"), [
    ("returns", 1, "its engine died"), ("help", 0, ""), ("fails", 7, ""),
])  # fmt: skip
def test_success_of_a_server_that_nothing_stopped_is_a_failure(
    server: str, code: int, message: str, made: list[Supervised]
) -> None:
    made.append(Supervised(server))
    ended, _, err = made[0].end()
    assert ended == code
    assert message in err
    assert bool(err) == bool(message)


def test_a_killed_server_is_a_failure(made: list[Supervised]) -> None:
    made.append(Supervised("waits"))
    os.kill(made[0].processes[0].pid, signal.SIGKILL)
    code, _, err = made[0].end()
    assert code == 128 + signal.SIGKILL
    assert err == "program: the server was killed by SIGKILL\n"


def test_a_killed_supervisor_takes_the_server_with_it(made: list[Supervised]) -> None:
    made.append(Supervised("waits"))
    made[0].end(signal.SIGKILL)
    assert not psutil.wait_procs(made[0].processes, timeout=60)[1]
