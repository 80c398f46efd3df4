"""`make openclaw`: have the boxes of this machine run the real OpenClaw, and the way back."""

from collections.abc import Mapping
from pathlib import Path

from openclaw_web.core.settings import Settings
from openclaw_web.local import box_images, control, places, real_openclaw, warm_openclaw
from openclaw_web.local.places import Places
from openclaw_web.local.real_openclaw import Installed, OpenClawInstallError
from openclaw_web.local.screen import Screen
from openclaw_web.local.warm_openclaw import ColdError

MEMORY = "about 1.1 GB of memory each"


def where(chosen: Settings) -> Path:
    """Return the folder that OpenClaw is installed in, or would be."""
    return real_openclaw.folder_of(places.open_places(chosen.home))


def bring(chosen: Settings, environment: Mapping[str, str]) -> None:
    """Install OpenClaw and have new boxes run it.

    Raises:
        OpenClawError: there is no room, no network, or it does not run here.
    """
    _refuse_production(chosen)
    screen = Screen()
    opened = places.open_places(chosen.home)
    found = real_openclaw.install(opened, screen, environment)
    _warm(opened, found, screen)
    screen.line(f"\nNew boxes run the real OpenClaw {found.version}, {MEMORY}.")
    if refusal := box_images.sandbox_refusal():
        screen.warning(box_images.NO_SANDBOX.format(why=refusal))
    else:
        screen.line(
            "Each sees its own memory and configuration only: a sandbox hides the rest of this "
            "machine's files and programs. The network is the machine's."
        )
    screen.line(_next_step(opened))
    screen.line("Back to the stand-in: REMOVE=1 make openclaw")


def take_away(chosen: Settings) -> None:
    """Remove OpenClaw; new boxes run the stand-in again.

    Raises:
        OpenClawInstallError: a stack runs, whose boxes may be using it.
    """
    _refuse_production(chosen)
    opened = places.open_places(chosen.home)
    if control.running_pid(opened.home) is not None:
        raise OpenClawInstallError(
            f"OpenClaw Cloud runs in {opened.home}, and its boxes may be using the real OpenClaw; "
            "end it first: make stop"
        )
    was_there = real_openclaw.remove(opened)
    box_images.write(opened)
    Screen().line(
        "OpenClaw is gone; new boxes run the stand-in. The boxes' own memory was left alone."
        if was_there
        else "OpenClaw was not installed; new boxes run the stand-in."
    )


def _warm(opened: Places, found: Installed, screen: Screen) -> None:
    """Keep what Node compiles of it, once; a machine where that fails has slower boxes."""
    if warm_openclaw.environment(found.folder):
        return
    screen.line("  One message to it, to keep what Node compiles (a minute)")
    try:
        warm_openclaw.warm(found.folder, box_images.real_program(opened, found))
    except ColdError as error:
        screen.warning(f"Nothing was kept, so boxes start more slowly. {error}")


def _next_step(opened: Places) -> str:
    """Switch a running stack over where that is safe at once, and say what to do."""
    if control.running_pid(opened.home) is None:
        return "`make run` starts with it."
    if box_images.sandbox_refusal():
        # Its worker would not deny the tools yet.
        return "The running stack takes it when it starts anew: make stop, then make run."
    box_images.write(opened)
    return "The running stack takes it at once; restart a box (on /box) to move it over."


def _refuse_production(chosen: Settings) -> None:
    if chosen.is_production:
        raise OpenClawInstallError(
            "OPENCLAW_CLOUD_ENV=production is set, and there boxes run the image that BOX_IMAGE "
            "names; this command is for the embedded cluster."
        )
