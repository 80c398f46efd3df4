"""Start the Kimi simulator: `python -m simulators.kimi --port … --key-file … …`."""

from pathlib import Path

from simulators import options, parser, read_secret, serve
from simulators.kimi.app import CONTENT_TYPES, VENDOR_PATHS, build
from simulators.kimi.connections import Connection


def main() -> None:
    arguments_parser = parser(__doc__)
    arguments_parser.add_argument(
        "--key-file", type=Path, required=True, help="0600 file with the API key"
    )
    arguments = arguments_parser.parse_args()
    chosen = options(arguments)
    app = build(chosen.state, read_secret(arguments.key_file))
    serve(
        app,
        chosen,
        content_types=CONTENT_TYPES,
        vendor_paths=VENDOR_PATHS,
        connection=Connection,
    )


if __name__ == "__main__":
    main()
