"""Stripe on a laptop: its REST API, hosted checkout and portal pages, and signed webhooks.

The version spoken is the one that the official Python library of `requirements.txt` is pinned to.
What it takes and answers is held against that library's types (`tests/contracts/test_stripe_*`);
what it does not do it refuses by name. Where it knowingly differs from Stripe:

- The card 4000 0000 0000 0341 pays on a page and fails at renewals; Stripe's fails on both.
- A refused renewal is tried again after 3, 5 and 7 days (Stripe's custom schedule), a refused
  webhook after seconds first; Stripe's test mode tries a webhook three times in some hours.
- Money is not followed further: no balance transactions, fees, payouts, tax or receipts.
- One price interval for a subscription; portal with card and invoices only; one account.
- A payment that waits for 3-D Secure names our page, where Stripe's invoices want its JavaScript.
"""

API_VERSION = "2026-10-28.endive"
