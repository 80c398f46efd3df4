"""What a provider's status says: whether the request ran there, and whose fault it is."""

from typing import Final

OK: Final = 200
FIRST_FAILURE: Final = 400
SLOW_DOWN: Final = 429
ABOUT_THE_REQUEST: Final = frozenset({400, 404, 405, 413, 415, 422})  # every provider would say so
# Nothing is billed, so somebody else may be asked; docs/upstreams.md has the reason for each.
NOTHING_RAN: Final = frozenset({401, 402, 403, 429, 500, 503, 521, 522, 523, 525, 526, 529})
# A machine before the provider gave up waiting for it.
MAY_BE_WORKING: Final = frozenset({504, 524})
# What no request can bring about, so that none can shut the others out. 403 and 500 can be.
OF_THE_KEY: Final = frozenset({401, 402})
OF_THE_PROVIDER: Final = frozenset({502, 503, 521, 522, 523, 529})
