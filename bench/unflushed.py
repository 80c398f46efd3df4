"""`python -m bench.unflushed proxy`: the token proxy alone, whose batches wait until it ends.

Beside `python -m openclaw_web proxy` in one run it says what of a request's cost is the writing of
its event into PostgreSQL.
"""

import sys

from openclaw_web.cli import main
from openclaw_web.gateway import settling

if __name__ == "__main__":
    settling.BATCH_SECONDS = 86_400.0
    settling.MANY_PENDING = sys.maxsize
    sys.exit(main())
