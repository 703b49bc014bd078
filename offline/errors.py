"""What can go wrong offline, as a branch of trimtab's error tree.

    TrimtabError (trimtab.vectors.errors)
    └── OfflineError
        ├── DataError            a samples file, a vector file or a folder of states is unusable; names it
        ├── EndpointError        a server went away, refused a request, or did not steer as it was asked to
        ├── ModelError           the model's folder cannot be read, or its decoder has no form that we know
        └── SettingError         cannot be had: an unknown rule, a layer too deep, more clusters than states

Each message says in one sentence what is wrong, what is allowed and what to do; the CLI prints it and nothing else.
"""

from __future__ import annotations

from trimtab.vectors.errors import TrimtabError


class OfflineError(TrimtabError):
    """Base of everything that `trimtab.offline` raises on purpose."""


class DataError(OfflineError):
    """A file or folder that was given cannot be used. The message begins with its name."""


class EndpointError(OfflineError):
    """A server went away, refused a request, or did not steer as it was asked to."""


class ModelError(OfflineError):
    """The model cannot be loaded, or its residual stream cannot be found."""


class SettingError(OfflineError):
    """A setting is out of range or contradicts another one."""
