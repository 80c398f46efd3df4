"""Stripe's test cards, and how each of them behaves."""

import calendar
import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from simulators.stripe.store import Json

DECLINED = "Your card was declined."
EXPIRED = "Your card has expired."
EXPIRES = (12, 2034)
YEARS_OF_A_NEW_CARD = 4


class Presence(StrEnum):
    """Whether the card's owner is there when money is taken."""

    OFF = "off_session"
    ON = "on_session"
    AUTHENTICATED = "authenticated"  # and has just proved to the bank to be the owner


@dataclass(frozen=True, kw_only=True)
class Card:
    """A card number of Stripe's documentation.

    `refusal` is the decline code given `at` one of: "attach" (it never works), "later" (it works
    while its owner is there and fails at each renewal). `challenge` is when the bank wants 3-D
    Secure: "once" (then renewals pass) or "always". `afterwards` is what follows a payment that
    went well: "dispute", "inquiry" or "warning".
    """

    number: str
    brand: str
    story: str
    names: tuple[str, ...]
    at: str = ""
    refusal: str = ""
    code: str = "card_declined"
    sentence: str = DECLINED
    challenge: str = ""
    afterwards: str = ""

    @property
    def last4(self) -> str:
        return self.number[-4:]

    @property
    def spaced(self) -> str:
        return " ".join(self.number[at : at + 4] for at in range(0, len(self.number), 4))

    def is_refused(self, presence: Presence) -> bool:
        return self.at == "attach" or (self.at == "later" and presence == Presence.OFF)


CARDS = (
    Card(
        number="4242424242424242",
        brand="visa",
        story="Pays, now and at each renewal",
        names=("pm_card_visa",),
    ),
    Card(
        number="5555555555554444",
        brand="mastercard",
        story="Pays, now and at each renewal",
        names=("pm_card_mastercard",),
    ),
    Card(
        number="4000000000000002",
        brand="visa",
        story="Is declined",
        names=("pm_card_chargeDeclined", "pm_card_visa_chargeDeclined"),
        at="attach",
        refusal="generic_decline",
    ),
    Card(
        number="4000000000009995",
        brand="visa",
        story="Has insufficient funds",
        names=(
            "pm_card_chargeDeclinedInsufficientFunds",
            "pm_card_visa_chargeDeclinedInsufficientFunds",
        ),
        at="attach",
        refusal="insufficient_funds",
        sentence="Your card has insufficient funds.",
    ),
    Card(
        number="4000000000000069",
        brand="visa",
        story="Has expired",
        names=("pm_card_chargeDeclinedExpiredCard", "pm_card_visa_chargeDeclinedExpiredCard"),
        at="attach",
        refusal="expired_card",
        code="expired_card",
        sentence=EXPIRED,
    ),
    Card(
        number="4000002500003155",
        brand="visa",
        story="Asks for 3-D Secure once, then renews",
        names=("pm_card_authenticationRequiredOnSetup",),
        challenge="once",
    ),
    Card(
        number="4000002760003184",
        brand="visa",
        story="Asks for 3-D Secure each time, also at renewals",
        names=("pm_card_authenticationRequired",),
        challenge="always",
    ),
    Card(
        number="4000000000000341",
        brand="visa",
        story="Pays today, fails at renewal",
        names=("pm_card_chargeCustomerFail",),
        at="later",
        refusal="generic_decline",
    ),
    Card(
        number="4000000000000259",
        brand="visa",
        story="Pays, then its owner disputes it as fraud",
        names=("pm_card_createDispute",),
        afterwards="dispute",
    ),
    Card(
        number="4000000000005423",
        brand="visa",
        story="Pays, then its bank warns of fraud",
        names=("pm_card_createIssuerFraudRecord",),
        afterwards="warning",
    ),
)
BY_NUMBER = {card.number: card for card in CARDS}
BY_PAYMENT_METHOD = {name: card for card in CARDS for name in card.names}
BY_LAST4 = {card.last4: card for card in CARDS}


def details(card: Card, expires: tuple[int, int] = EXPIRES) -> Json:
    """Return the `card` part of a payment method; `expires` is a month and a year."""
    month, year = expires
    return {
        "brand": card.brand,
        "checks": {
            "address_line1_check": None,
            "address_postal_code_check": None,
            "cvc_check": "pass",
        },
        "country": "US",
        "display_brand": card.brand,
        "exp_month": month,
        "exp_year": year,
        "fingerprint": hashlib.sha256(card.number.encode()).hexdigest()[:16],
        "funding": "credit",
        "generated_from": None,
        "last4": card.last4,
        "networks": {"available": [card.brand], "preferred": None},
        "regulated_status": "unregulated",
        "three_d_secure_usage": {"supported": True},
        "wallet": None,
    }


def of(method: Json) -> Card:
    return BY_LAST4[method["card"]["last4"]]


def is_over(expires: tuple[int, int], now: int) -> bool:
    """Whether a month and year of a card have passed; the month itself still counts."""
    month, year = expires
    last_day = calendar.monthrange(year, month)[1]
    return datetime(year, month, last_day, 23, 59, 59, tzinfo=UTC).timestamp() < now


def expiry_of(method: Json) -> tuple[int, int]:
    return method["card"]["exp_month"], method["card"]["exp_year"]
