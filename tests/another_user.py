"""A process of another user, as a container has it: an id without a name and a home, and no privileges."""

from __future__ import annotations

import shutil
import subprocess

UID = 54321
# It may read everything, as a checkout's owner may have closed its folders, and write next to nothing.
AS_ANOTHER = (
    *("setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", "--inh-caps=-all,+dac_read_search"),
    *("--ambient-caps=+dac_read_search", "--bounding-set=-all,+dac_read_search"),
)
CAPABILITIES = 1 << 2  # those that stay, as /proc says them: CAP_DAC_READ_SEARCH


def can(*words: str) -> bool:
    """Whether this user may run a program."""
    return bool(shutil.which(words[0])) and not subprocess.run([*words], capture_output=True).returncode
