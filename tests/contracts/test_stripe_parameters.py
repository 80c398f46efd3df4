"""The parameters that the simulator knows are those of the installed library."""

import pytest

from simulators.stripe.errors import StripeError
from simulators.stripe.forms import decode
from tests.contracts import stripe_parameters


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_known_parameters_are_those_of_the_library():
    written = stripe_parameters.TARGET.read_text(encoding="utf-8")
    assert written == stripe_parameters.as_text(), "python -m tests.contracts.stripe_parameters"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a=1&b=two+words", {"a": "1", "b": "two words"}),
        ("a[b][c]=1&a[b][d]=2", {"a": {"b": {"c": "1", "d": "2"}}}),
        ("a[0][b]=1&a[1][b]=2", {"a": {"0": {"b": "1"}, "1": {"b": "2"}}}),
        ("a[]=1&a[]=2", {"a": {"0": "1", "1": "2"}}),
        ("a[%5Bx]=1&b=", None),
        ("metadata=", {"metadata": ""}),
    ],
)
def test_nested_fields_are_read(text, expected):
    if expected is None:
        with pytest.raises(StripeError, match="Invalid parameter name"):
            decode(text)
    else:
        assert decode(text) == expected


def test_a_field_cannot_be_both_a_text_and_an_object():
    with pytest.raises(StripeError, match="Invalid object"):
        decode("a=1&a[b]=2")
