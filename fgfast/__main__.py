"""`python -m fgfast`: the same as the command `fgfast`."""

import os
import sys

# `python -m` puts the current folder first on the import path. It may be anybody's: fgfast imports nothing from it,
# unless it is fgfast's own source tree. Python has imported both modules above long before.
_OWN = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))  # noqa: PTH120
if os.path.realpath(sys.path[0] or os.curdir) == os.path.realpath(os.curdir) != _OWN:
    del sys.path[0]

from fgfast.cli import main  # noqa: E402

main(prog_name="fgfast")
