"""`python -m fgfast`: the same as the command `fgfast`."""

from fgfast.cli import main

main(prog_name="fgfast")
