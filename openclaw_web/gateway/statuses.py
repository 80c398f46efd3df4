"""What a provider's status says: whether the request ran there, and whose fault it is."""

OK = 200
FIRST_FAILURE = 400
SLOW_DOWN = 429
ABOUT_THE_REQUEST = frozenset({400, 404, 405, 413, 415, 422})  # every provider would say so
# Nothing is billed, so somebody else may be asked; docs/upstreams.md has the reason for each.
NOTHING_RAN = frozenset({401, 402, 403, 429, 500, 503, 521, 522, 523, 525, 526, 529})
MAY_BE_WORKING = frozenset({504, 524})  # a machine before the provider gave up waiting for it
# What no request can bring about, so that none can shut the others out. 403 and 500 can be.
OF_THE_KEY = frozenset({401, 402})
OF_THE_PROVIDER = frozenset({502, 503, 521, 522, 523, 529})
