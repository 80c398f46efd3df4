"""The fields of an invoice that stay as they are in this simulator, so that answers have them."""

from simulators.stripe.store import Json

ACCOUNT = "Test shop"
NOTHING = (
    "account_tax_ids application automatically_finalizes_at custom_fields customer_account"
    " customer_shipping default_payment_method default_source description due_date effective_at"
    " ending_balance footer from_invoice hosted_invoice_url invoice_pdf last_finalization_error"
    " latest_revision next_payment_attempt number on_behalf_of receipt_number rendering"
    " shipping_cost shipping_details statement_descriptor test_clock webhooks_delivered_at"
)
ZEROES = (
    "amount_overpaid amount_paid amount_shipping attempt_count post_payment_credit_notes_amount"
    " pre_payment_credit_notes_amount"
)
EMPTY_LISTS = (
    "customer_tax_ids default_tax_rates discounts total_discount_amounts"
    " total_pretax_credit_amounts total_taxes"
)


def blanks() -> Json:
    return {
        **dict.fromkeys(NOTHING.split()),
        **dict.fromkeys(ZEROES.split(), 0),
        **{name: [] for name in EMPTY_LISTS.split()},
        "account_country": "US",
        "account_name": ACCOUNT,
        "attempted": False,
        "auto_advance": True,
        "automatic_tax": {
            "disabled_reason": None,
            "enabled": False,
            "liability": None,
            "provider": None,
            "status": None,
        },
        "collection_method": "charge_automatically",
        "customer_tax_exempt": "none",
        "issuer": {"type": "self"},
        "livemode": False,
        "metadata": {},
        "payment_settings": {
            "default_mandate": None,
            "payment_method_options": None,
            "payment_method_types": None,
        },
        "status": "draft",
        "status_transitions": {
            "finalized_at": None,
            "marked_uncollectible_at": None,
            "paid_at": None,
            "voided_at": None,
        },
    }
