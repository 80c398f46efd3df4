"""How money, tokens and times are written: once, here, in English."""

from datetime import UTC, datetime, timedelta

CURRENCY_SIGNS = {"usd": "$", "eur": "€", "gbp": "£"}
MILLION = 1_000_000
THOUSAND = 1_000
ALMOST_MILLION = 999_950  # from here on it would be written 1000k
JUST_NOW = 10  # seconds; below, a number would only look busy
MINUTE = 60
HOUR = 3600
DAY = 86_400


def money(cents: int, currency: str = "usd") -> str:
    """Write integer cents: `$19`, `$19.50`."""
    sign = CURRENCY_SIGNS.get(currency.lower(), f"{currency.upper()} ")
    whole, rest = divmod(abs(cents), 100)
    minus = "-" if cents < 0 else ""
    return f"{minus}{sign}{whole:,}" + (f".{rest:02d}" if rest else "")


def tokens(count: int) -> str:
    """Write a count of tokens exactly: `1,234,567`."""
    return f"{count:,}"


def tokens_short(count: int) -> str:
    """Write a count of tokens for a headline: `950`, `12.3k`, `40M`."""
    for size, least, letter in ((MILLION, ALMOST_MILLION, "M"), (THOUSAND, THOUSAND, "k")):
        if count >= least:
            return f"{count / size:.1f}".removesuffix(".0") + letter
    return str(count)


def size(count: int) -> str:
    """Write a number of bytes: `950 B`, `12.3 kB`, `4.5 MB`."""
    for unit, letters in ((THOUSAND * MILLION, "GB"), (MILLION, "MB"), (THOUSAND, "kB")):
        if count >= unit:
            return f"{count / unit:.1f}".removesuffix(".0") + f" {letters}"
    return f"{count} B"


def percent(part: int, whole: int) -> float:
    """Return how much of the whole the part is, in percent with one decimal."""
    return round(part / whole * 100, 1) if whole else 0.0


def day(moment: datetime) -> str:
    """Write a day: `21 Nov 2026` (UTC)."""
    return moment.astimezone(UTC).strftime("%-d %b %Y")


def day_and_time(moment: datetime) -> str:
    """Write a minute: `21 Nov 2026, 14:05 UTC`."""
    return moment.astimezone(UTC).strftime("%-d %b %Y, %H:%M UTC")


def ago(moment: datetime, now: datetime) -> str:
    """Write how long ago something was: `just now`, `5 min ago`, `3 h ago`, `2 days ago`."""
    seconds = max(0, int((now - moment).total_seconds()))
    if seconds < MINUTE:
        return "just now" if seconds < JUST_NOW else f"{seconds} s ago"
    if seconds < HOUR:
        return f"{seconds // MINUTE} min ago"
    if seconds < DAY:
        return f"{seconds // HOUR} h ago"
    days = seconds // DAY
    return "yesterday" if days == 1 else f"{days} days ago"


def took(milliseconds: int) -> str:
    """Write how long one request took: `14 ms`, `2.3 s`."""
    return f"{milliseconds} ms" if milliseconds < THOUSAND else f"{milliseconds / THOUSAND:.1f} s"


def duration(span: timedelta) -> str:
    """Write a span roughly: `45 s`, `12 min`, `3 h`, `2 days`."""
    seconds = max(0, int(span.total_seconds()))
    for size, unit in ((DAY, "days"), (HOUR, "h"), (MINUTE, "min")):
        if seconds >= size:
            count = seconds // size
            return f"{count} {'day' if unit == 'days' and count == 1 else unit}"
    return f"{seconds} s"
