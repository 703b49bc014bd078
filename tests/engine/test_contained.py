"""A server as its container runs it: any user id, no privileges, a read-only root folder, no programs in /tmp."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.another_user import AS_ANOTHER, CAPABILITIES, UID, can
from tests.engine.asking import yes_no
from tests.engine.server import Server
from trimtab.plugin.model import op_cpu

_MOUNTS = """
set -e
mount -t tmpfs -o mode=755 tmpfs /media
mkdir /media/model /media/profiles
mkdir -m 1777 /media/home
mount --bind "$1" /media/model
mount --bind "$2" /media/profiles
{keep}
mount -t tmpfs -o mode=1777,noexec,nosuid,nodev tmpfs /tmp
{restore}
mount -o remount,bind,ro /
shift 2
exec "$@"
"""


def _mounts(*needed: Path) -> str:
    """The script that makes the container's folders; what is needed stays where it is, in /tmp too."""
    hidden = [folder for folder in needed if folder.is_relative_to("/tmp")]
    keep = [f"mkdir /media/{n}; mount --bind '{folder}' /media/{n}" for n, folder in enumerate(hidden)]
    restore = [f"mkdir -p '{folder}'; mount --bind /media/{n} '{folder}'" for n, folder in enumerate(hidden)]
    return _MOUNTS.replace("{keep}", "\n".join(keep)).replace("{restore}", "\n".join(restore))


_APART = (
    "unshare",
    "--mount",
    "sh",
    "-c",
    _mounts(Path(__file__).parents[2], Path(sys.base_prefix), op_cpu._folder().parent),
    "sh",
)

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(not can(*_APART, "/srv", "/srv", *AS_ANOTHER, "true"), reason="this user may not mount folders"),
]


def test_a_server_steers_as_any_user_on_a_read_only_root(model: Path, profiles: Path, tmp_path: Path) -> None:
    op_cpu.load()  # as the image has it: compiled, and root's own
    home = {"HOME": "/media/home", "USER": "trimtab", "TORCHINDUCTOR_CACHE_DIR": "/media/home/.cache/torchinductor"}
    running = Server(
        tmp_path / "log",
        Path("/media/model"),
        Path("/media/profiles"),
        program=(*_APART, str(model), str(profiles), *AS_ANOTHER, sys.executable, "serve.py"),
        env={**home, "TORCH_EXTENSIONS_DIR": str(op_cpu._folder().parent)},
    )
    try:
        for process in [running.process.pid, *(one.pid for one in running.processes())]:
            status = Path(f"/proc/{process}/status").read_text().split("\n")
            told = {name: value.split() for name, _, value in (line.partition(":") for line in status)}
            assert set(told["Uid"]) == {str(UID)}
            assert int(told["CapBnd"][0], 16) == CAPABILITIES
            mounts = [line.split() for line in Path(f"/proc/{process}/mounts").read_text().splitlines()]
            options = {place: words.split(",") for _, place, _, words, *_ in mounts}
            assert "ro" in options["/"]
            assert "noexec" in options["/tmp"]
        (plain,) = yes_no("yes", 1)
        assert running.text(plain).startswith("yes")
        assert running.text(plain.steered("yes-to-no")).startswith("no")
    finally:
        code = running.stop()
    assert code == 0
