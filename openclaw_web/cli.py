"""Every command of `python -m openclaw_web`, for a laptop, a container, or whoever is on call."""

import argparse
import asyncio
import json
import os
import re
import sys
from collections.abc import Callable, Sequence

from openclaw_web.core.errors import OpenClawError
from openclaw_web.core.settings import Settings, settings

# Imports stand inside the commands: `status` answers in a moment, and `web` never loads what only
# `worker` needs.
# ruff: noqa: PLC0415

Handler = Callable[[argparse.Namespace], int]
SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
FAILED = 1
MOST_WORKERS = 64
NOT_NOTICED = 4  # a check that stays green when it must not


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    chosen = _parser().parse_args(arguments)
    try:
        return chosen.run(chosen)
    except OpenClawError as error:
        print(f"✗ {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return 130


def up(_arguments: argparse.Namespace) -> int:
    from openclaw_web.local import control, status
    from openclaw_web.local.screen import Screen
    from openclaw_web.local.up import up as bring_up

    try:
        bring_up(settings(), os.environ)  # noqa: TID251 - the children inherit it
    except control.AlreadyRunningError as error:
        print(f"{error}\n")
        status.show(status.look(settings().home), Screen())
    return 0


def stop(_arguments: argparse.Namespace) -> int:
    from openclaw_web.local import control

    ended = control.stop(settings().home)
    print("OpenClaw Cloud has ended." if ended else f"Nothing runs in {settings().home}.")
    return 0


def show_status(arguments: argparse.Namespace) -> int:
    from openclaw_web.local import status
    from openclaw_web.local.screen import Screen

    found = status.look(settings().home)
    if arguments.json:
        print(json.dumps(found.as_dict(), indent=1))
    else:
        status.show(found, Screen())
    return found.exit_code


def reset(arguments: argparse.Namespace) -> int:
    from openclaw_web.local import control, places

    home = settings().home
    if not home.exists():
        print(f"There is nothing to forget: {home} does not exist.")
        return 0
    if control.running_pid(home) is not None:
        raise control.StopError(f"OpenClaw Cloud runs in {home}; end it first: make stop")
    if not arguments.yes and not _agreed(f"Forget all data in {home}? Type yes: "):
        print("Nothing was changed.")
        return FAILED
    places.forget(home)
    print(f"{home} is gone.")
    return 0


def doctor(_arguments: argparse.Namespace) -> int:
    from openclaw_web.local import doctor as checks
    from openclaw_web.local.screen import Screen

    return 0 if checks.examine(settings(), Screen()) else FAILED


def migrate(arguments: argparse.Namespace) -> int:
    from openclaw_web.core import migrations

    url = _database_url(settings())
    if not arguments.check:
        migrations.migrate(url)
        print("The database has the newest schema.")
        return 0
    found = migrations.drift(url)
    print(found or "The database has the newest schema, and it is the tables'.")
    return FAILED if found else 0


def check_schema(_arguments: argparse.Namespace) -> int:
    from openclaw_web.local import scratch

    found = scratch.schema_drift()
    print(found or "Migrations and tables agree.")
    return FAILED if found else 0


def prepare(arguments: argparse.Namespace) -> int:
    from openclaw_web.core.logs import configure_logs
    from openclaw_web.local import first_steps, places

    configure_logs(settings().log_level)
    opened = places.open_places(settings().home)
    first_steps.take(
        opened, is_own_database=arguments.own_database, is_own_stripe=arguments.own_stripe
    )
    return 0


def build(_arguments: argparse.Namespace) -> int:
    from openclaw_web.local import frontend

    frontend.build(settings().home / "web", settings().port)
    return 0


def web(_arguments: argparse.Namespace) -> int:
    from openclaw_web.local import web as server

    server.serve(settings())
    return 0


def worker(_arguments: argparse.Namespace) -> int:
    from openclaw_web import worker as operator

    operator.main()
    return 0


def proxy(arguments: argparse.Namespace) -> int:
    from openclaw_web.core.logs import configure_logs
    from openclaw_web.core.settings import require
    from openclaw_web.gateway import alone

    configure_logs(settings().log_level)
    require(settings())
    alone.serve_alone(workers=arguments.workers)
    return 0


def clock(arguments: argparse.Namespace) -> int:
    from openclaw_web.local import clocks

    seconds = _seconds(arguments.by) if arguments.action == "advance" else None
    print(asyncio.run(clocks.advance(settings(), seconds) if seconds else clocks.tell(settings())))
    return 0


def create_admin(arguments: argparse.Namespace) -> int:
    from openclaw_web.local import support

    password = asyncio.run(support.create_admin(settings(), arguments.email))
    print(f"{arguments.email} is an admin; the password is shown only now: {password}")
    return 0


def issue_token(arguments: argparse.Namespace) -> int:
    from openclaw_web.local import support

    token = asyncio.run(
        support.issue_token(
            settings(),
            arguments.email,
            kind=arguments.kind,
            is_unthrottled=arguments.unthrottled,
        )
    )
    print(f"{token}\n", end="")
    print("The token is shown only now.", file=sys.stderr)
    return 0


def publish_catalogue(_arguments: argparse.Namespace) -> int:
    from openclaw_web.local import support

    for name, price_id in asyncio.run(support.publish_catalogue()).items():
        print(f"{name}  {price_id}")
    return 0


def demo(arguments: argparse.Namespace) -> int:
    from openclaw_web.local import support

    asyncio.run(support.fill_demo(settings(), customers=arguments.customers, days=arguments.days))
    print(f"{arguments.customers} customers with {arguments.days} days of history were added.")
    return 0


def check_invariants(arguments: argparse.Namespace) -> int:
    from openclaw_web.local import meter_check
    from openclaw_web.metering import sabotage

    name = arguments.sabotage
    if name and (arguments.customer or arguments.repair):
        raise OpenClawError("A sabotage happens to somebody made up, and is never repaired.")
    verdict = asyncio.run(
        meter_check.check_sabotaged(settings(), name)
        if name
        else meter_check.check(settings(), email=arguments.customer, repair=arguments.repair)
    )
    if arguments.json:
        print(json.dumps(verdict.as_dict(), indent=1))
    else:
        for repair in verdict.repairs:
            print(f"set right: {repair.table} {repair.row}: {repair.before} -> {repair.after}")
        for finding in verdict.findings:
            whose = finding.customer_id or "this machine"
            print(f"✗ {finding.invariant} ({whose}, {finding.subject}): {finding.sentence}")
        if verdict.is_green:
            print(f"✓ {verdict.customers} customers: events, days, months and counters agree.")
    noticed = {finding.invariant for finding in verdict.findings}
    if name and sabotage.NOTICED_BY[name] not in noticed:
        print(f"The check did not notice the sabotage {name}.", file=sys.stderr)
        return NOT_NOTICED
    return 0 if verdict.is_green else FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="openclaw_web", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_stack_commands(commands)
    _add_server_commands(commands)
    _add_clock_command(commands)
    _add_admin_commands(commands)
    return parser


def _add(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    run: Handler,
    summary: str,
) -> argparse.ArgumentParser:
    made = commands.add_parser(name, help=summary, description=summary)
    made.set_defaults(run=run)
    return made


def _add_stack_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    _add(commands, "up", up, "start everything on this machine and stay until Ctrl-C")
    _add(commands, "stop", stop, "end the running stack and wait for it")
    found = _add(
        commands, "status", show_status, "tell how the stack is; exit code 3: nothing runs"
    )
    found.add_argument("--json", action="store_true", help="for programs")
    found = _add(commands, "reset", reset, "forget all data of this machine's stack")
    found.add_argument("--yes", action="store_true", help="do not ask")
    _add(
        commands, "doctor", doctor, "look at this machine and say what is wrong and how to mend it"
    )


def _add_server_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    found = _add(commands, "migrate", migrate, "bring the database to the newest schema")
    found.add_argument("--check", action="store_true", help="change nothing; fail when it differs")
    _add(
        commands, "check-schema", check_schema, "compare migrations and tables on a scratch server"
    )
    _add(commands, "web", web, "serve the pages, the forms, the webhook and the token proxy")
    _add(commands, "worker", worker, "run the operator: jobs, timers, mail")
    found = _add(commands, "proxy", proxy, "serve the token proxy alone")
    found.add_argument("--workers", type=_count, default=1, help="processes that share the port")
    _add(commands, "build", build, "build the pages into the state folder (the supervisor does it)")
    found = _add(commands, "prepare", prepare, "tables, admin, catalogue (the supervisor does it)")
    found.add_argument("--own-database", action="store_true", help="create the database as well")
    found.add_argument("--own-stripe", action="store_true", help="register our webhook as well")


def _add_clock_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    found = _add(commands, "clock", clock, "tell both clocks, or move business time forward")
    found.add_argument("action", nargs="?", choices=["show", "advance"], default="show")
    found.add_argument("by", nargs="?", default="", help="how far: 35d, 2h, 90s")


def _add_admin_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    admin = commands.add_parser("admin", help="what only an operator may do")
    tasks = admin.add_subparsers(required=True, metavar="TASK")
    found = _add(tasks, "create-admin", create_admin, "make an admin and print the password once")
    found.add_argument("--email", required=True)
    found = _add(tasks, "issue-token", issue_token, "print a new proxy token for a customer's box")
    found.add_argument("--email", required=True)
    found.add_argument(
        "--kind",
        choices=["box", "api"],
        default="box",
        help="box: works from inside only; api: from anywhere, once the box's API access is on",
    )
    found.add_argument("--unthrottled", action="store_true", help="without the tier's rate limits")
    _add(tasks, "publish-catalogue", publish_catalogue, "have Stripe know every tier and its price")
    found = _add(
        tasks, "invariants", check_invariants, "check that events, days, months and counters agree"
    )
    found.add_argument("--customer", default="", metavar="EMAIL", help="one, from the first day on")
    found.add_argument("--repair", action="store_true", help="bring roll-ups back to the ledger")
    found.add_argument(
        "--sabotage", default="", metavar="NAME", help="break one of somebody's made up"
    )
    found.add_argument("--json", action="store_true", help="for programs")
    found = _add(tasks, "demo", demo, "add made-up customers with history, to look at full screens")
    found.add_argument("--customers", type=int, default=40)
    found.add_argument("--days", type=int, default=60)


def _count(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= MOST_WORKERS:
        raise argparse.ArgumentTypeError(f"give a number from 1 to {MOST_WORKERS}")
    return int(text)


def _seconds(text: str) -> int:
    """Read a length of time such as 35d, 2h, 15m or 90s."""
    found = re.fullmatch(r"(\d+)([smhd])", text)
    if found is None:
        raise OpenClawError(f"{text!r} is no length of time; write 35d, 2h, 15m or 90s.")
    return int(found[1]) * SECONDS[found[2]]


def _database_url(chosen: Settings) -> str:
    if not chosen.database_url:
        raise OpenClawError("DATABASE_URL is not set; run `make run`, or name the server.")
    return chosen.database_url


def _agreed(question: str) -> bool:
    return sys.stdin.isatty() and input(question).strip().lower() == "yes"
