"""Checks an object of the API against what the official library says that such an object is."""

import ast
import decimal
import functools
import importlib
import inspect
import sys
import types
import typing

import stripe

CLASSES = {
    "customer": stripe.Customer,
    "product": stripe.Product,
    "price": stripe.Price,
    "subscription": stripe.Subscription,
    "subscription_item": stripe.SubscriptionItem,
    "invoice": stripe.Invoice,
    "line_item": stripe.InvoiceLineItem,
    "invoice_payment": stripe.InvoicePayment,
    "invoiceitem": stripe.InvoiceItem,
    "payment_intent": stripe.PaymentIntent,
    "charge": stripe.Charge,
    "payment_method": stripe.PaymentMethod,
    "refund": stripe.Refund,
    "coupon": stripe.Coupon,
    "promotion_code": stripe.PromotionCode,
    "discount": stripe.Discount,
    "dispute": stripe.Dispute,
    "radar.early_fraud_warning": stripe.radar.EarlyFraudWarning,
    "customer_balance_transaction": stripe.CustomerBalanceTransaction,
    "test_helpers.test_clock": stripe.test_helpers.TestClock,
    "event": stripe.Event,
    "webhook_endpoint": stripe.WebhookEndpoint,
    "checkout.session": stripe.checkout.Session,
    "item": stripe.LineItem,
    "billing_portal.session": stripe.billing_portal.Session,
    "billing_portal.configuration": stripe.billing_portal.Configuration,
}


ERROR_TYPES = {"api_error", "card_error", "idempotency_error", "invalid_request_error"}


def flaws_of_error(answer: dict) -> list[str]:
    """Return what is wrong with an error answer, in words."""
    error = answer.get("error", {})
    found = [f"error.{name} is missing" for name in ("type", "message") if name not in error]
    if error.get("type") not in ERROR_TYPES:
        found.append(f"error.type is {error.get('type')!r}")
    if "code" in error and "doc_url" not in error:
        found.append("error.doc_url is missing")
    known = set(_fields(stripe.ErrorObject)) | {"type", "message", "request_log_url"}
    return found + [f"error.{name} is unknown" for name in error if name not in known]


def flaws(answer: dict) -> list[str]:
    """Return what is wrong with an answer, in words; nothing when it is as Stripe's."""
    if answer.get("deleted"):
        allowed = {"id", "object", "deleted"}
        return [] if set(answer) == allowed else [f"a deleted object has {sorted(answer)}"]
    if answer.get("object") == "list":
        found = [] if isinstance(answer.get("has_more"), bool) else ["has_more missing"]
        return found + [flaw for one in answer["data"] for flaw in flaws(one)]
    found = _object(CLASSES[answer["object"]], answer, answer["object"])
    if answer["object"] == "event":
        found += flaws(answer["data"]["object"])
    return found


@functools.cache
def _fields(cls) -> dict:
    hints = typing.get_type_hints(cls, localns=_names_for_type_checkers(cls.__module__))
    own = {name: hint for name, hint in hints.items() if not name.startswith("_")}
    return {
        name: hint
        for name, hint in own.items()
        if name.islower() and typing.get_origin(hint) is not typing.ClassVar
    }


@functools.cache
def _names_for_type_checkers(module: str) -> dict:
    names = {}
    for node in ast.parse(inspect.getsource(sys.modules[module])).body:
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            for line in node.body:
                assert isinstance(line, ast.ImportFrom)
                source = importlib.import_module(line.module or "")
                names |= {one.asname or one.name: getattr(source, one.name) for one in line.names}
    return names


def _object(cls, value: dict, path: str) -> list[str]:
    found = []
    fields = _fields(cls)
    for name, hint in fields.items():
        if name in value:
            found += _value(hint, value[name], f"{path}.{name}")
        elif not _may_be_missing(hint):
            found.append(f"{path}.{name} is missing")
    return found + [f"{path}.{name} is unknown" for name in value if name not in fields]


def _may_be_missing(hint) -> bool:
    return hint is typing.Any or type(None) in typing.get_args(hint)


def _value(hint, value, path: str) -> list[str]:  # noqa: PLR0911 - one for each kind of type
    origin = typing.get_origin(hint)
    if hint is typing.Any:
        return []
    if value is None:
        return [] if _may_be_missing(hint) else [f"{path} is null"]
    if origin in {typing.Union, types.UnionType}:
        return _union(typing.get_args(hint), value, path)
    if origin is typing.Literal:
        choices = typing.get_args(hint)
        return [] if value in choices else [f"{path} is {value!r}, not one of {choices[:6]}"]
    if origin is list:
        inner = typing.get_args(hint)[0]
        if not isinstance(value, list):
            return [f"{path} is no list"]
        return [flaw for one in value for flaw in _value(inner, one, f"{path}[]")]
    return _single(origin or hint, typing.get_args(hint), value, path)


def _single(cls, arguments, value, path: str) -> list[str]:  # noqa: PLR0911 - as above
    if cls is decimal.Decimal:
        return [] if isinstance(value, str) else [f"{path} is no decimal string"]
    if cls is float:
        return [] if isinstance(value, int | float) else [f"{path} is no number"]
    if not issubclass(cls, stripe.StripeObject):
        is_right = isinstance(value, cls) and (cls is bool or not isinstance(value, bool))
        return [] if is_right else [f"{path} is {type(value).__name__}, not {cls.__name__}"]
    if not isinstance(value, dict):
        return [f"{path} is no object"]
    if cls is stripe.ListObject:
        return [
            flaw for one in value["data"] for flaw in _value(arguments[0], one, f"{path}.data[]")
        ]
    if cls.__name__ == "UntypedStripeObject":
        return [flaw for one in value.values() for flaw in _value(arguments[0], one, path)]
    return _object(cls, value, path)


def _union(choices, value, path: str) -> list[str]:
    """Stripe's enums are open in the annotations; here they are closed, our words must be known."""
    kept = [one for one in choices if one is not type(None)]
    if any(typing.get_origin(one) is typing.Literal for one in kept):
        kept = [one for one in kept if one is not str]
    results = [_value(one, value, path) for one in kept]
    return min(results, key=len)
