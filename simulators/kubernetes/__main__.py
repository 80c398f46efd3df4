"""Start the development cluster: `python -m simulators.kubernetes --port N --state DIR …`."""

import logging
from pathlib import Path

from simulators import options, parser, serve
from simulators.kubernetes import app, kubeconfig
from simulators.kubernetes.folders import Owner
from simulators.kubernetes.requests import CONTENT_TYPES
from simulators.kubernetes.secure import open_door


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--images", type=Path, required=True, help="JSON list of allowed images")
    arguments.add_argument("--kubeconfig", type=Path, required=True, help="file to write")
    arguments.add_argument("--volumes", type=Path, help="folder for volumes; default STATE/volumes")
    arguments.add_argument("--run-as", type=Owner.parse, metavar="UID:GID", help="the pods' user")
    arguments.add_argument(
        "--shared-address",
        action="store_true",
        help="give all pods 127.0.0.1 and free ports, as is done where loopback has no more",
    )
    arguments.add_argument("--log-level", default="warning")
    given = arguments.parse_args()
    logging.basicConfig(level=given.log_level.upper(), format="%(name)s %(message)s")
    chosen = options(given)
    door = open_door(chosen)
    settings = app.Settings(
        state=chosen.state,
        volumes=given.volumes or chosen.state / "volumes",
        images=given.images,
        kubeconfig=given.kubeconfig,
        token=chosen.token,
        owner=given.run_as,
        door=door,
        shares_address=given.shared_address,
    )
    made = app.create(settings)
    kubeconfig.write(given.kubeconfig, door.url, door.authority, chosen.token)
    serve(made, chosen, content_types=CONTENT_TYPES, vendor_paths=app.VENDOR_PATHS)


if __name__ == "__main__":
    main()
