"""How money, tokens and times are written."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from openclaw_web.ui import format as fmt

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("cents", "currency", "written"),
    [
        (1900, "usd", "$19"),
        (1950, "usd", "$19.50"),
        (5, "usd", "$0.05"),
        (-1205, "USD", "-$12.05"),
        (123_456_700, "eur", "€1,234,567"),
        (1900, "chf", "CHF 19"),
    ],
)
def test_money(cents, currency, written):
    assert fmt.money(cents, currency) == written


@pytest.mark.parametrize(
    ("count", "exact", "short"),
    [
        (0, "0", "0"),
        (960, "960", "960"),
        (1_000, "1,000", "1k"),
        (12_345, "12,345", "12.3k"),
        (950_000, "950,000", "950k"),
        (999_949, "999,949", "999.9k"),
        (999_950, "999,950", "1M"),
        (40_000_000, "40,000,000", "40M"),
        (1_234_567_890, "1,234,567,890", "1234.6M"),
    ],
)
def test_tokens(count, exact, short):
    assert (fmt.tokens(count), fmt.tokens_short(count)) == (exact, short)


@pytest.mark.parametrize(
    ("past", "written"),
    [
        (timedelta(seconds=-5), "just now"),
        (timedelta(seconds=9), "just now"),
        (timedelta(seconds=59), "59 s ago"),
        (timedelta(minutes=59), "59 min ago"),
        (timedelta(hours=23), "23 h ago"),
        (timedelta(days=1), "yesterday"),
        (timedelta(days=40), "40 days ago"),
    ],
)
def test_how_long_ago(past, written):
    assert fmt.ago(NOON - past, NOON) == written


@pytest.mark.parametrize(
    ("span", "written"),
    [
        (timedelta(seconds=-3), "0 s"),
        (timedelta(seconds=45), "45 s"),
        (timedelta(minutes=12), "12 min"),
        (timedelta(hours=3), "3 h"),
        (timedelta(days=1), "1 day"),
        (timedelta(days=2), "2 days"),
    ],
)
def test_how_long(span, written):
    assert fmt.duration(span) == written


@pytest.mark.parametrize(("milliseconds", "written"), [(14, "14 ms"), (2_345, "2.3 s")])
def test_how_long_a_request_took(milliseconds, written):
    assert fmt.took(milliseconds) == written


def test_a_day_is_one_of_utc():
    late = datetime(2026, 11, 21, 22, 30, tzinfo=timezone(timedelta(hours=-5)))
    assert fmt.day(late) == "22 Nov 2026"
    assert fmt.day_and_time(late) == "22 Nov 2026, 03:30 UTC"


@pytest.mark.parametrize(("part", "whole", "percent"), [(1, 3, 33.3), (5, 0, 0.0), (3, 2, 150.0)])
def test_percent(part, whole, percent):
    assert fmt.percent(part, whole) == percent
