"""`python -m trimtab.offline.cli`: the command `trimtab`."""

from . import main

main()
