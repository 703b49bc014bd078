import sys

from .work import run

sys.exit(run())
