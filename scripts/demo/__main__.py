"""``python -m scripts.demo``: the tour, with everything that it needs started and stopped."""

from __future__ import annotations

import sys

from .tour import main

if __name__ == "__main__":
    sys.exit(main())
