"""Every table, imported once: the app, the worker, Alembic and the tests start from here."""

from sqlmodel import SQLModel

from openclaw_web.accounts import models as accounts
from openclaw_web.billing import models as billing
from openclaw_web.boxes import models as boxes
from openclaw_web.core import switches
from openclaw_web.jobs import models as jobs
from openclaw_web.metering import models as metering
from openclaw_web.onboarding import models as onboarding

AREAS = (accounts, billing, boxes, jobs, metering, onboarding, switches)
METADATA = SQLModel.metadata


def resolve() -> None:
    """Find the table of each foreign key, at start rather than in the first statement.

    Raises:
        sqlalchemy.exc.NoReferencedTableError: a key leads to a table that is not in this module.
    """
    list(METADATA.sorted_tables)
