"""`python -m fgfast.export`: `fgfast export` for scripts that run without fgfast's command line."""

from __future__ import annotations

from fgfast.export.command import main

if __name__ == "__main__":
    main()
