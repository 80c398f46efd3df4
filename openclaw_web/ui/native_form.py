"""A plain HTML form that really leaves the page: only a real POST can set an HttpOnly cookie."""

from typing import Any

import reflex as rx
from reflex_components_core.el.elements.base import BaseHTML


class NativeForm(BaseHTML):
    tag = "form"

    action: rx.Var[str]
    method: rx.Var[str]


def native_form(*children: rx.Component, action: str, **props: Any) -> rx.Component:
    """Post the form's fields to a route of ours."""
    return NativeForm.create(*children, action=action, method="post", **props)
