"""What breaks under a server: a profile half written, a disk that is full or read-only, an engine that is killed.

half_written: {states: of a folder that was looked at while it was written, wrong: answers meanwhile by anything but the
last whole version}.
disk_full: {free_pages: the room that was left, from none to enough, so that each write in turn was the one that failed,
refused, done: what came of a change then, wrong}. read_only: the same for a state folder that cannot be written, and
starts: a server that starts on it ends with a sentence.
engine_killed: {answers: running ones, unended: those that neither ended nor broke off, exit_code: of the server,
same_digests: whether it serves the same after a restart}.

The whole part has a server of its own, whose state folder is a small disk; a share below 1 has the first fault only.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
from tqdm import tqdm

from tests.engine.engine import ROOT
from tests.engine.server import CHAT
from tests.reliability.disk import SmallDisk
from tests.reliability.parts.doors import OPEN
from tests.reliability.parts.reload import LIVE, bring, is_mixed, versions
from tests.reliability.served import MODEL, Shared, asking, policy, shared, until
from trimtab.vectors import Profile, save_profile

_STATES = 60
_PAGES = 24
_RUNNING = 16


def run(work: Path, share: float) -> dict[str, Any]:
    wrong: list[str] = []
    found = {"half_written": _half_written(shared(work), round(_STATES * share), wrong)}
    if share < 1:
        return {**found, "wrong": wrong}
    home = work / "faults"
    shutil.rmtree(home, ignore_errors=True)
    disk = SmallDisk(home / "state")
    try:
        server = Shared(home)
        try:
            server.govern(OPEN)
            found["disk_full"] = _disk_full(server, disk, wrong)
            found["read_only"] = _read_only(server, disk, wrong)
            found["engine_killed"] = _engine_killed(server, wrong)
        finally:
            if server.process.poll() is None:
                server.stop()
    finally:
        disk.close()
    return {**found, "wrong": wrong}


def _half_written(server: Shared, states: int, wrong: list[str]) -> dict[str, Any]:
    """A version is copied over the one before, in place and a piece at a time, while the folder is looked at."""
    server.govern(OPEN)
    made = list(versions(server).values())
    words = {version.digest: word for word, version in versions(server).items()}
    bring(server, made[0])
    whole = {path.name: path.read_bytes() for path in save_profile(made[1], server.home / "new").iterdir()}
    folder = server.profiles / LIVE
    looked, before = 0, len(wrong)
    names = ("profile.safetensors", "profile.json") if states % 2 else ("profile.json", "profile.safetensors")
    try:
        for name in names:
            content = whole[name]
            for end in range(0, len(content), max(1, 2 * len(content) // states)):
                (folder / name).write_bytes(content[:end])
                time.sleep(0.25)  # longer than a rescan takes to come
                _check_answer(server, words, {made[0].digest}, f"{name} cut at {end}", wrong)
                looked += 1
            (folder / name).write_bytes(content)
        until(lambda: server.http.post(CHAT, json=_asks()).headers["X-Steering-Digest"] == made[1].digest)
        _check_answer(server, words, {made[1].digest}, "the whole folder", wrong)
        if server.ready().status_code != 200:
            wrong.append("half written: the server is not ready when the folder is whole")
    finally:
        shutil.rmtree(server.home / "new")
        shutil.rmtree(folder)
        server.change("unload", LIVE)
        server.govern(policy())
    return {"states": looked, "wrong": len(wrong) - before}


def _disk_full(server: Shared, disk: SmallDisk, wrong: list[str]) -> dict[str, Any]:
    made = list(versions(server).values())
    words = {version.digest: word for word, version in versions(server).items()}
    tally, before = Counter[str](), len(wrong)
    bring(server, made[0])
    for free in tqdm(range(_PAGES), "disk full", mininterval=5):
        previous, version = made[free % len(made)].digest, made[(free + 1) % len(made)]
        with disk.full(free):
            _try_change(server, version, f"{free} free pages", tally, wrong)
            _check_answer(server, words, {previous, version.digest}, f"{free} free pages", wrong)
        _check_logs(server, wrong)
        bring(server, version)
        _check_answer(server, words, {version.digest}, "room again", wrong)
    if not tally["refused"] or not tally["done"]:
        wrong.append(f"disk full: the room was never too little, or never enough: {dict(tally)}")
    return {"free_pages": _PAGES, **tally, "wrong": len(wrong) - before}


def _read_only(server: Shared, disk: SmallDisk, wrong: list[str]) -> dict[str, Any]:
    made = list(versions(server).values())
    words = {version.digest: word for word, version in versions(server).items()}
    tally, before = Counter[str](), len(wrong)
    bring(server, made[0])
    with disk.read_only():
        _try_change(server, made[1], "a read-only disk", tally, wrong)
        _check_answer(server, words, {made[0].digest}, "a read-only disk", wrong)
        starts = _start_on(server.home / "state", server)
        if starts.returncode == 0 or "Traceback" in starts.stderr or "state folder" not in starts.stderr:
            wrong.append(f"a start on a read-only disk: exit {starts.returncode}: {starts.stderr[-400:]}")
    bring(server, made[1])
    _check_answer(server, words, {made[1].digest}, "a disk that can be written again", wrong)
    return {**tally, "starts": starts.returncode, "wrong": len(wrong) - before}


def _start_on(state: Path, server: Shared) -> subprocess.CompletedProcess[str]:
    options = ("--steering-profiles", str(server.profiles), "--steering-state", str(state))
    command = [sys.executable, "serve.py", str(MODEL), *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


def _engine_killed(server: Shared, wrong: list[str]) -> dict[str, Any]:
    made = list(versions(server).values())
    bring(server, made[2])
    server.change("disable", "say-tie", reason="it is being looked at")
    served = server.ready().json()
    long = {**asking(CHAT, 400, steering="say-arm"), "ignore_eos": True, "stream": True}
    url, before = server.http.base_url.join(CHAT), len(wrong)

    def ask(_: int) -> str:
        try:
            with httpx.stream("POST", url, json=long, timeout=120) as reply:
                text = "".join(reply.iter_text())
        except httpx.TimeoutException:
            return "unended"
        except httpx.TransportError:
            return "broken off"
        return "ended" if reply.status_code == 200 and "[DONE]" in text and '"error"' not in text else "an error"

    with ThreadPoolExecutor(_RUNNING) as pool:
        running = pool.map(ask, range(_RUNNING))
        time.sleep(1.0)
        (engine,) = server.engines()
        started = server.processes()
        engine.send_signal(signal.SIGKILL)
        ends = Counter(running)
    code = server.process.wait(120)
    left = [process for process in started if process.is_running() and process.status() != "zombie"]
    if code == 0 or ends["unended"] or left or not ends.keys() - {"ended"}:
        wrong.append(f"the engine was killed: exit code {code}, answers {dict(ends)}, left {left}")
    again = Shared(server.home, again=True)
    try:
        now = again.ready().json()
        same = _same(served, now)
        if not same:
            wrong.append(f"after a restart it serves {now} and served {served}")
        refused = again.http.post(CHAT, json=asking(CHAT, steering="say-tie"))
        if refused.status_code != 503:
            wrong.append(f"after a restart a disabled profile is served: {refused.status_code}")
        _check_answer(again, {made[2].digest: list(versions(again))[2]}, {made[2].digest}, "a restart", wrong)
    finally:
        again.stop()
    unended = ends["unended"]
    return {
        "answers": _RUNNING,
        "unended": unended,
        "exit_code": code,
        "same_digests": same,
        "wrong": len(wrong) - before,
    }


def _same(before: dict[str, Any], after: dict[str, Any]) -> bool:
    """Whether two servers serve the same versions, disabled ones included, under the same policy."""

    def active(found: dict[str, Any]) -> dict[str, Any]:
        return {name: (one["active"], one["disabled"]) for name, one in found["profiles"].items()}

    return active(before) == active(after) and before["policy"] == after["policy"]


def _try_change(server: Shared, version: Profile, where: str, tally: Counter[str], wrong: list[str]) -> None:
    save_profile(version, server.profiles / LIVE, overwrite=True)
    for what, fields in (("stage", {}), ("activate", {"digest": f"sha256:{version.digest}"})):
        reply = server.change(what, LIVE, **fields)
        tally["done" if reply.status_code == 200 else "refused"] += 1
        if reply.status_code not in (200, 409, 503):
            wrong.append(f"{where}: {what} gave {reply.status_code} {reply.text[:300]}")
    if server.http.get("/health").status_code != 200:
        wrong.append(f"{where}: the server is not healthy")


def _check_answer(server: Shared, words: dict[str, str], digests: set[str], where: str, wrong: list[str]) -> None:
    reply = server.http.post(CHAT, json=_asks())
    told = reply.headers.get("X-Steering-Digest")
    if reply.status_code != 200 or told not in digests or is_mixed(reply, words):
        wrong.append(f"{where}: {reply.status_code} by {told} and not {digests}: {reply.text[:300]}")


def _check_logs(server: Shared, wrong: list[str]) -> None:
    for name in ("audit.jsonl", "decisions.jsonl"):
        for line in (server.state / name).read_text().splitlines():
            try:
                json.loads(line)
            except ValueError:
                wrong.append(f"{name} has half a line: {line[:200]}")


def _asks() -> dict[str, Any]:
    return asking(CHAT, 4, steering=LIVE)
