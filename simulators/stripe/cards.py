"""Stripe's test cards, and how each of them behaves."""

import hashlib
from dataclasses import dataclass

from simulators.stripe.store import Json

DECLINED = "Your card was declined."
EXPIRES = (12, 2034)


@dataclass(frozen=True, kw_only=True)
class Card:
    """A card number of Stripe's documentation.

    `refusal` is the decline code given `at` one of: "attach" (it never works), "later" (it works
    while its owner is there and fails at each renewal).
    """

    number: str
    brand: str
    story: str
    payment_method: str
    at: str = ""
    refusal: str = ""
    sentence: str = DECLINED
    needs_challenge: bool = False

    @property
    def last4(self) -> str:
        return self.number[-4:]

    @property
    def spaced(self) -> str:
        return " ".join(self.number[at : at + 4] for at in range(0, len(self.number), 4))


CARDS = (
    Card(
        number="4242424242424242",
        brand="visa",
        story="Pays, now and at each renewal",
        payment_method="pm_card_visa",
    ),
    Card(
        number="4000000000000002",
        brand="visa",
        story="Is declined",
        payment_method="pm_card_chargeDeclined",
        at="attach",
        refusal="generic_decline",
    ),
    Card(
        number="4000000000000341",
        brand="visa",
        story="Pays today, fails at renewal",
        payment_method="pm_card_chargeCustomerFail",
        at="later",
        refusal="generic_decline",
    ),
    Card(
        number="4000002500003155",
        brand="visa",
        story="Asks for 3-D Secure once",
        payment_method="pm_card_authenticationRequiredOnSetup",
        needs_challenge=True,
    ),
    Card(
        number="4000000000009995",
        brand="visa",
        story="Has insufficient funds",
        payment_method="pm_card_visa_chargeDeclinedInsufficientFunds",
        at="attach",
        refusal="insufficient_funds",
        sentence="Your card has insufficient funds.",
    ),
    Card(
        number="5555555555554444",
        brand="mastercard",
        story="Pays, now and at each renewal",
        payment_method="pm_card_mastercard",
    ),
)
BY_NUMBER = {card.number: card for card in CARDS}
BY_PAYMENT_METHOD = {card.payment_method: card for card in CARDS}
BY_LAST4 = {card.last4: card for card in CARDS}


def details(card: Card) -> Json:
    """Return the `card` part of a payment method."""
    month, year = EXPIRES
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
