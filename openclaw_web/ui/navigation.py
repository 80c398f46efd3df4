"""Leaving the single-page app: for routes of ours that are no Reflex pages, and for other sites."""

import json

import reflex as rx


def leave_to(address: str) -> rx.event.EventSpec:
    """Make the browser really load an address.

    rx.redirect would look for a page of that name inside the app when the host is our own.
    """
    return rx.call_script(f"window.location.assign({json.dumps(address)})")
