"""`python -m simulators.stripe --port N --state DIR --public-url URL …`: starts the simulator."""

from pathlib import Path

from simulators import options, parser, read_secret, serve
from simulators.stripe.app import build

CONTENT_TYPES = frozenset({"application/x-www-form-urlencoded", "application/json"})


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--key-file", type=Path, required=True, help="0600 file, sk_test_…")
    given = arguments.parse_args()
    chosen = options(given)
    key = read_secret(given.key_file)
    if not key.startswith("sk_test_"):
        raise SystemExit(f"{given.key_file} must hold a made-up key that begins with sk_test_")
    app = build(chosen, key)
    serve(app, chosen, content_types=CONTENT_TYPES, vendor_paths=("/v1",))


if __name__ == "__main__":
    main()
