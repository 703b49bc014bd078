"""The server that a tuning and the demo start: here a program of a few lines in place of vLLM's."""

from __future__ import annotations

import json
import sys
import time
import urllib.request
from pathlib import Path

import psutil
import pytest

from trimtab.offline.errors import EndpointError
from trimtab.offline.tuning import Server

SERVES = """
import http.server, json, os, pathlib, subprocess, sys
helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
pathlib.Path(os.environ["TOLD"]).write_text(json.dumps([os.getpid(), helper.pid, *sys.argv[1:]]))
class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Health).serve_forever()
"""


def server(tmp_path: Path, code: str) -> Server:
    return Server(
        Path("model"), Path("profiles"), tmp_path / "log", ("--dtype", "float32"), {"TOLD": str(tmp_path / "told")},
        program=(sys.executable, "-c", code), name="ours",
    )  # fmt: skip


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_nothing_starts_before_the_address_is_asked_for_and_nothing_is_left(tmp_path: Path) -> None:
    with server(tmp_path, SERVES) as running:
        assert not (tmp_path / "told").exists()
        url = running.url()
        assert running.url() == url
        assert urllib.request.urlopen(url.removesuffix("/v1") + "/health", timeout=5).status == 200
        own, helper, *arguments = json.loads((tmp_path / "told").read_text())
        assert arguments[:5] == ["model", "--steering-profiles", "profiles", "--served-model-name", "ours"]
        assert arguments[-2:] == ["--dtype", "float32"]
        assert psutil.pid_exists(helper)
    for _ in range(600):  # the kernel ends what was killed when it comes to it
        if not (alive(own) or alive(helper)):
            return
        time.sleep(0.1)
    pytest.fail("a process of the server is left")


def test_a_server_that_ends_is_told_with_its_last_words(tmp_path: Path) -> None:
    code = "import sys; print('starting'); sys.exit('trimtab-serve: no model here')"
    with server(tmp_path, code) as running, pytest.raises(EndpointError, match=r"ended with 1 .*no model here"):
        running.url()
