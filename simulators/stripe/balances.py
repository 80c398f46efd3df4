"""A customer's balance with the shop: negative is credit, positive is owed on the next invoice."""

from simulators.stripe import events
from simulators.stripe.errors import invalid
from simulators.stripe.paging import LIST_PARAMS, answer, within
from simulators.stripe.store import Json, new_id
from simulators.stripe.world import Operation, Params, World, check_currency, merge_metadata

KIND = "customer_balance_transaction"


def change(
    world: World,
    customer: Json,
    amount: int,
    *,
    kind: str,
    currency: str,
    invoice: str | None = None,
    params: Params | None = None,
) -> Json:
    """Add an amount to a customer's balance, and return the transaction that says why."""
    given = params or {}
    after = {**customer, "balance": customer["balance"] + amount}
    after["currency"] = customer["currency"] or currency
    events.changed(world, "customer.updated", customer, after)
    return world.store.put(
        {
            "id": new_id("cbtxn"),
            "object": KIND,
            "amount": amount,
            "checkout_session": None,
            "created": world.now(),
            "credit_note": None,
            "currency": currency,
            "customer": customer["id"],
            "customer_account": None,
            "description": given.get("description"),
            "ending_balance": after["balance"],
            "invoice": invoice,
            "livemode": False,
            "metadata": merge_metadata({}, given),
            "type": kind,
        }
    )


def create(world: World, params: Params, customer: str) -> Json:
    owner = world.customer(customer)
    currency = check_currency(params["currency"])
    if params["amount"] == 0:
        raise invalid("The amount must not be zero.", "amount")
    if owner["currency"] not in {None, currency}:
        raise invalid(
            f"This customer's balance is in {owner['currency']}, not in {currency}.", "currency"
        )
    amount = params["amount"]
    return change(world, owner, amount, kind="adjustment", currency=currency, params=params)


def list_transactions(world: World, params: Params, customer: str) -> Json:
    world.need("customer", customer)

    def wanted(one: Json) -> bool:
        is_asked_for = params.get("invoice") in {None, one["invoice"]}
        return is_asked_for and within(one["created"], params.get("created"))

    url = f"/v1/customers/{customer}/balance_transactions"
    return answer(url, params, world.store.every(KIND, customer), wanted)


def retrieve(world: World, _params: Params, _customer: str, identifier: str) -> Json:
    return world.need(KIND, identifier)


def update(world: World, params: Params, _customer: str, identifier: str) -> Json:
    before = world.need(KIND, identifier)
    after = {**before, "metadata": merge_metadata(before["metadata"], params)}
    after["description"] = params.get("description", before["description"])
    return world.store.put(after)


OPERATIONS = (
    Operation(
        method="POST",
        path="/v1/customers/{}/balance_transactions",
        run=create,
        supports="amount currency description metadata expand",
    ),
    Operation(
        method="GET",
        path="/v1/customers/{}/balance_transactions",
        run=list_transactions,
        supports=f"{LIST_PARAMS} created invoice",
    ),
    Operation(
        method="GET",
        path="/v1/customers/{}/balance_transactions/{}",
        run=retrieve,
        supports="expand",
    ),
    Operation(
        method="POST",
        path="/v1/customers/{}/balance_transactions/{}",
        run=update,
        supports="description metadata expand",
    ),
)
