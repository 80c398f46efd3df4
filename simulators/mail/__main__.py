"""Start the mail simulator: `python -m simulators.mail --port … --smtp-port … …`."""

from simulators import options, parser, serve
from simulators.mail.app import CONTENT_TYPES, build


def main() -> None:
    arguments_parser = parser(__doc__)
    arguments_parser.add_argument("--smtp-port", type=int, required=True)
    arguments = arguments_parser.parse_args()
    chosen = options(arguments)
    app = build(chosen.state, arguments.smtp_port)
    serve(app, chosen, content_types=CONTENT_TYPES, vendor_paths=())


if __name__ == "__main__":
    main()
