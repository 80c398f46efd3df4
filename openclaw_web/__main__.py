"""`python -m openclaw_web`."""

import sys

from openclaw_web.cli import main

if __name__ == "__main__":
    sys.exit(main())
