"""What is under way in the queues: before it is done, time must not go on."""

from dataclasses import dataclass

import sqlalchemy as sa
from sqlmodel.ext.asyncio.session import AsyncSession

_COUNTS = sa.text("""
SELECT
  (SELECT count(*) FROM webhook_events
   WHERE NOT processed AND run_after <= clock_timestamp()) AS events,
  (SELECT count(*) FROM webhook_events
   WHERE NOT processed AND run_after > clock_timestamp()) AS resting_events,
  (SELECT count(*) FROM billing_syncs
   WHERE requested_seq > synced_seq AND error IS NULL) AS syncs,
  (SELECT count(*) FROM billing_syncs
   WHERE requested_seq > synced_seq AND error IS NOT NULL) AS resting_syncs,
  (SELECT count(*) FROM operator_jobs
   WHERE status = 'running' OR (status = 'queued' AND run_after <= clock_timestamp())) AS jobs,
  (SELECT count(*) FROM operator_jobs
   WHERE status = 'queued' AND run_after > clock_timestamp()) AS resting_jobs,
  (SELECT count(*) FROM reversals
   WHERE finished_at IS NULL AND run_after <= clock_timestamp()) AS reversals,
  (SELECT count(*) FROM reversals
   WHERE finished_at IS NULL AND run_after > clock_timestamp()) AS resting_reversals
""")


@dataclass(frozen=True, kw_only=True)
class UnderWay:
    """How much waits or is being done; what rests has failed and is tried again later."""

    deliveries: int = 0
    events: int = 0
    resting_events: int = 0
    syncs: int = 0
    resting_syncs: int = 0
    jobs: int = 0
    resting_jobs: int = 0
    reversals: int = 0
    resting_reversals: int = 0

    @property
    def is_quiet(self) -> bool:
        """Say whether nothing goes on by itself; what the timers carry out does not count."""
        return not (self.deliveries or self.events or self.syncs or self.jobs)

    def sentences(self) -> list[str]:
        """Return what is left, in words."""
        words = {
            "webhooks of Stripe are not delivered": self.deliveries,
            "stored events are not applied": self.events,
            "events could not be applied and wait for another try": self.resting_events,
            "customers are not compared with Stripe": self.syncs,
            "syncs failed and wait for another try": self.resting_syncs,
            "jobs are not done": self.jobs,
            "jobs failed and wait for another try": self.resting_jobs,
            "payments are not given back": self.reversals,
            "payments could not be given back and wait for another try": self.resting_reversals,
        }
        return [f"{count} {what}" for what, count in words.items() if count]


async def look(session: AsyncSession, *, deliveries: int = 0) -> UnderWay:
    """Count what is under way here, beside what Stripe still has to deliver."""
    connection = await session.connection()
    row = (await connection.execute(_COUNTS)).mappings().one()
    return UnderWay(deliveries=deliveries, **row)
