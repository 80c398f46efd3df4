"""Every command of `python -m openclaw_web`, for a laptop, a container, or whoever is on call."""

import argparse
import asyncio
import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path

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


def openclaw(arguments: argparse.Namespace) -> int:
    from openclaw_web.local import openclaw as real

    if arguments.act == "where":
        print(real.where(settings()))
    elif arguments.act == "remove":
        real.take_away(settings())
    else:
        real.bring(settings(), os.environ)  # noqa: TID251 - pip and npm inherit it
    return 0


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


def compile_proxy(_arguments: argparse.Namespace) -> int:
    from openclaw_web.local import compiling

    count = compiling.compile_modules()
    print(f"Compiled {count} modules; the next `web` and `proxy` use them.")
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

    if arguments.action == "show":
        print(asyncio.run(clocks.tell(settings())))
        return 0
    span = None if arguments.by == "next" else timedelta(seconds=_seconds(arguments.by))
    return asyncio.run(_advance(span))


async def _advance(span: timedelta | None) -> int:
    """Move the clock, and print each stop; exit code 1 when something could not be finished."""
    from openclaw_web.local import clocks

    stops = unfinished = 0
    async for hop in clocks.advance(settings(), span):
        print(hop, flush=True)
        stops, unfinished = stops + 1, unfinished + bool(hop.left)
    if not stops:
        print("Nothing is planned.")
    print(await clocks.tell(settings()))
    if unfinished:
        print(f"{unfinished} of {stops} stops were left before all was done.", file=sys.stderr)
    return FAILED if unfinished else 0


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


def rotate_keys(_arguments: argparse.Namespace) -> int:
    from openclaw_web.local import support

    found = asyncio.run(support.rotate_keys(settings()))
    for unreadable in found.unreadable:
        print(f"✗ {unreadable}")
    for table, count in found.done.items():
        print(f"{table}: {count} rows were brought under the newest key.")
    if found.unreadable:
        print(f"{len(found.unreadable)} rows could not be read and are as before.")
    return FAILED if found.unreadable else 0


def verify_backups(_arguments: argparse.Namespace) -> int:
    from openclaw_web.local import support

    found = asyncio.run(support.verify_backups(settings()))
    for backup_id, trouble in found.broken.items():
        print(f"✗ {backup_id}: {trouble}")
    print(f"{found.whole} backups can be restored, {len(found.broken)} cannot.")
    return FAILED if found.broken else 0


def publish_catalogue(_arguments: argparse.Namespace) -> int:
    from openclaw_web.local import support

    for name, price_id in asyncio.run(support.publish_catalogue()).items():
        print(f"{name}  {price_id}")
    return 0


def brakes(arguments: argparse.Namespace) -> int:
    from openclaw_web.local import levers

    if arguments.release:
        was_on = asyncio.run(levers.release(settings(), arguments.release, reason=arguments.reason))
        print(f"{arguments.release} {'is released' if was_on else 'was not on'}.")
    for switch, is_on in ((arguments.on, True), (arguments.off, False)):
        if switch:
            asyncio.run(levers.turn(settings(), switch, is_on=is_on, reason=arguments.reason))
    print("\n".join(asyncio.run(levers.show(settings()))))
    return 0


def act_on_cluster(arguments: argparse.Namespace) -> int:
    from openclaw_web.local import levers

    if not arguments.acts:
        raise OpenClawError("Say what to do: --accept, --allow-drift or --end-incident.")
    for act in arguments.acts:
        asyncio.run(
            levers.act_on_cluster(settings(), act, arguments.cluster, reason=arguments.reason)
        )
        print(f"{act}: done; the workers see it within a minute.")
    return 0


def refund(arguments: argparse.Namespace) -> int:
    from openclaw_web.local import levers

    asyncio.run(
        levers.refund(
            settings(), arguments.email, reason=arguments.reason, ends_now=arguments.ends_now
        )
    )
    print("The worker gives it back within half a minute; the audit trail says when it did.")
    return 0


def memory(arguments: argparse.Namespace) -> int:
    from openclaw_web.local import levers

    chosen = (arguments.email, arguments.bring_back)
    print("\n".join(asyncio.run(levers.memory(settings(), *chosen, reason=arguments.reason))))
    return 0


def box(arguments: argparse.Namespace) -> int:
    from openclaw_web.local import fleet

    email, image, reason = arguments.email, arguments.upgrade, arguments.reason
    if arguments.all != (not email) or (arguments.all and not image):
        raise OpenClawError("Name one with --email, or upgrade --all.")
    if arguments.all:
        asyncio.run(_upgrade_all(image, reason, arguments.at_once))
    elif arguments.destroy:
        question = f"Delete the assistant of {email}, with all that it remembers? Type yes: "
        if not arguments.yes and not _agreed(question):
            print("Nothing was changed.")
            return FAILED
        asyncio.run(fleet.destroy(settings(), email, reason=reason))
        print("The worker deletes it; its last backup is kept for 30 days.")
    elif image:
        asyncio.run(fleet.upgrade(settings(), email, image, reason=reason))
        print("The worker saves its memory and upgrades it; what does not work goes back.")
    if email and not arguments.destroy:
        print(asyncio.run(fleet.show(settings(), email)))
    return 0


async def _upgrade_all(image: str, reason: str, at_once: int) -> None:
    from openclaw_web.local import fleet

    async for line in fleet.upgrade_all(settings(), image, reason=reason, at_once=at_once):
        print(line, flush=True)


def sync(arguments: argparse.Namespace) -> int:
    from openclaw_web.local import syncing

    changes = asyncio.run(syncing.sync(settings(), arguments.customer))
    print("\n".join(changes or ["Nothing changed: what we have is what Stripe says."]))
    return 0


def replay_event(arguments: argparse.Namespace) -> int:
    from openclaw_web.local import syncing

    found = asyncio.run(syncing.replay(settings(), arguments.event))
    print(f"{arguments.event} ({found.event_type}): {found.outcome}")
    print("\n".join(found.changes or ["Nothing changed."]))
    return 0 if found.is_applied else FAILED


def replay_scenarios(arguments: argparse.Namespace) -> int:
    from openclaw_web.workflows import billing_scenarios

    outcome = billing_scenarios.replay(arguments.file)
    for one in outcome.mismatches:
        where = f"{arguments.file}:{one.line}: {one.scenario}, {one.at:%Y-%m-%d %H:%M}"
        print(f"✗ {where}: {one.name} is {one.actual}, expected {one.expected}")
    if outcome.mismatches:
        return FAILED
    print(f"✓ {outcome.scenarios} scenarios, {outcome.dates} dates: all as expected.")
    return 0


def demo(arguments: argparse.Namespace) -> int:
    from openclaw_web.local import support

    asyncio.run(support.fill_demo(settings(), customers=arguments.customers, days=arguments.days))
    print(f"{arguments.customers} customers with {arguments.days} days of history were added.")
    return 0


def check_invariants(arguments: argparse.Namespace) -> int:
    from openclaw_web.local import audits

    name = arguments.sabotage
    if name and (arguments.customer or arguments.repair):
        raise OpenClawError("A sabotage happens to somebody made up, and is never repaired.")
    audit = asyncio.run(
        audits.run_sabotaged(settings(), name)
        if name
        else audits.run(settings(), email=arguments.customer, repair=arguments.repair)
    )
    print(json.dumps(audit.as_dict(), indent=1) if arguments.json else "\n".join(audit.lines()))
    if name and audits.NOTICED_BY[name] not in audit.noticed:
        print(f"The check did not notice the sabotage {name}.", file=sys.stderr)
        return NOT_NOTICED
    return 0 if audit.is_green else FAILED


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
    found = _add(
        commands, "openclaw", openclaw, "have new boxes run the real OpenClaw (1 GB to install)"
    )
    found.add_argument(
        "act",
        nargs="?",
        choices=["install", "remove", "where"],
        default="install",
        help="remove: back to the stand-in; where: the folder that it is in",
    )
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
    _add(commands, "compile", compile_proxy, "make machine code of the token proxy (never needed)")
    found = _add(commands, "prepare", prepare, "tables, admin, catalogue (the supervisor does it)")
    found.add_argument("--own-database", action="store_true", help="create the database as well")
    found.add_argument("--own-stripe", action="store_true", help="register our webhook as well")


def _add_clock_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    found = _add(commands, "clock", clock, "tell both clocks, or move business time forward")
    found.add_argument("action", nargs="?", choices=["show", "advance"], default="show")
    found.add_argument("by", nargs="?", default="", help="how far: 35d, 2h, 90s, next")


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
    _add(tasks, "rotate-keys", rotate_keys, "encrypt every stored secret under the newest key")
    _add(tasks, "verify-backups", verify_backups, "read every backup to its end: can it come back?")
    found = _add(tasks, "memory", memory, "list a customer's backups, or bring one back")
    found.add_argument("--email", required=True)
    found.add_argument("--bring-back", default="", metavar="BACKUP", help="into the box of now")
    found.add_argument("--reason", default="", help="required to bring one back")
    _add_box_command(tasks)
    _add(tasks, "publish-catalogue", publish_catalogue, "have Stripe know every tier and its price")
    found = _add(
        tasks, "invariants", check_invariants, "check that the meter is true and the money is right"
    )
    found.add_argument("--customer", default="", metavar="EMAIL", help="one, from the first day on")
    found.add_argument("--repair", action="store_true", help="bring roll-ups back to the ledger")
    found.add_argument(
        "--sabotage", default="", metavar="NAME", help="break one of somebody's made up"
    )
    found.add_argument("--json", action="store_true", help="for programs")
    _add_money_commands(tasks)
    _add_sync_commands(tasks)
    found = _add(tasks, "demo", demo, "add made-up customers with history, to look at full screens")
    found.add_argument("--customers", type=int, default=40)
    found.add_argument("--days", type=int, default=60)


def _add_box_command(tasks: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    found = _add(tasks, "box", box, "show a customer's assistant, upgrade it or all, or delete it")
    found.add_argument("--email", default="", help="whose")
    found.add_argument("--all", action="store_true", help="of the cluster CLUSTER_NAME")
    act = found.add_mutually_exclusive_group()
    act.add_argument("--upgrade", default="", metavar="IMAGE", help="goes back if it fails")
    act.add_argument("--destroy", action="store_true", help="now, once its plan has ended")
    found.add_argument(
        "--at-once", type=_count, default=10, help="of --all; the first one is alone"
    )
    found.add_argument("--reason", default="", help="required to change anything")
    found.add_argument("--yes", action="store_true", help="do not ask before --destroy")


def _add_money_commands(tasks: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    brake_names = ["suspensions", "refunds", "undelivered_refunds"]
    switch_names = [
        "refund_undelivered",
        "refund_duplicates",
        "refund_fraud_warnings",
        "provisioning_paused",
    ]
    found = _add(tasks, "brakes", brakes, "show what stops mass failures; release it, or switch")
    found.add_argument("--release", choices=brake_names, default="", metavar="BRAKE")
    found.add_argument("--on", choices=switch_names, default="", metavar="SWITCH")
    found.add_argument("--off", choices=switch_names, default="", metavar="SWITCH")
    found.add_argument("--reason", default="", help="required to change anything")
    found = _add(
        tasks, "cluster", act_on_cluster, "decide for a whole cluster what no worker may decide"
    )
    found.add_argument("cluster", metavar="CLUSTER", help="its CLUSTER_NAME")
    for act, text in (
        ("accept", "another cluster bears this name from now on"),
        ("allow-drift", "mend drift of many boxes for half a day"),
        ("end-incident", "what is still unhealthy is repaired and told; for an hour none begins"),
    ):
        found.add_argument(f"--{act}", dest="acts", action="append_const", const=act, help=text)
    found.add_argument("--reason", required=True)
    found = _add(tasks, "refund", refund, "give a customer's latest payment back")
    found.add_argument("--email", required=True)
    found.add_argument("--reason", required=True)
    found.add_argument("--ends-now", action="store_true", help="end the subscription as well")


def _add_sync_commands(tasks: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    found = _add(tasks, "sync", sync, "compare a customer with Stripe now; print what changed")
    found.add_argument("--customer", required=True, metavar="EMAIL")
    found = _add(tasks, "replay", replay_event, "apply a stored event of Stripe's once more")
    found.add_argument("--event", required=True, metavar="ID", help="evt_…, as Stripe names it")
    billing = tasks.add_parser("billing", help="what is decided about payments")
    acts = billing.add_subparsers(required=True, metavar="ACT")
    found = _add(
        acts, "replay", replay_scenarios, "play a file of scenarios; 1: one ends otherwise"
    )
    found.add_argument("file", type=Path, help="YAML; docs/billing.md says how it is written")


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
