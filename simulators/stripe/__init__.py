"""Stripe on a laptop: its REST API, hosted checkout and portal pages, and signed webhooks.

The version spoken is the one that the official Python library of `requirements.txt` is pinned to.
"""

API_VERSION = "2026-10-28.endive"
