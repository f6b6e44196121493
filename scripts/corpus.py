#!/usr/bin/env python3
"""``scripts/corpus.py --cases FILE --context FILE``: plays cases against the gateway and says what came of each.

Exit status 0 when everything but the hard cases is as expected, 1 otherwise, 2 when the files or options are wrong.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
PYTHON = PROJECT / ".venv" / "bin" / "python"

if __name__ == "__main__":
    if importlib.util.find_spec("aiohttp") is None and PYTHON.exists() and Path(sys.prefix) != PYTHON.parents[1]:
        # Started by the system's Python: go on in the environment that make has set up.
        os.execv(PYTHON, [str(PYTHON), __file__, *sys.argv[1:]])  # noqa: S606 - no shell is wanted
    sys.path.insert(0, str(PROJECT))
    from scripts.attacks.command import main

    sys.exit(main())
