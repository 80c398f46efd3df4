"""Proxy tokens, usage events, limits, periods and roll-ups."""
