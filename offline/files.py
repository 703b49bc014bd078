"""Writing a file so that it is never seen half written; `trimtab.vectors` does the same for its own files."""

from trimtab.vectors.files import write_whole

__all__ = ["write_whole"]
