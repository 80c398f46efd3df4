"""One of several processes that use up a limit together; started by test_meters_processes.py.

Reads its task as JSON from standard input, and writes what it was granted to standard output.
"""

import asyncio
import json
import random
import sys
from datetime import datetime
from uuid import UUID, uuid4

from openclaw_web.core.database import close_database, open_database, session_scope
from openclaw_web.integrations.redis import close_redis, open_redis
from openclaw_web.metering import limits, line
from openclaw_web.metering import service as metering
from openclaw_web.metering.ledger import Event
from openclaw_web.metering.meter import Reservation, Verdict
from openclaw_web.metering.meters import Meters
from openclaw_web.metering.sharing import Sharing


class Customer:
    def __init__(self, task: dict) -> None:
        self.task = task
        self.customer_id = UUID(task["customer_id"])
        self.period_start = datetime.fromisoformat(task["period_start"])
        self.meters = Meters(Sharing(reconnect_seconds=0.0))
        self.pending: list[Event] = []
        self.granted: list[int] = []
        self.refused = 0
        self.random = random.Random(task["seed"])  # noqa: S311 - a test's dice

    async def run(self) -> None:
        await self.meters.start()
        self.meters.meter(self.customer_id, self.period_start).learn(self.task["used"])
        async with asyncio.TaskGroup() as tasks:
            flushing = tasks.create_task(self.flush_for_ever())
            callers = [tasks.create_task(self.call()) for _ in range(self.task["callers"])]
            await asyncio.wait(callers)
            flushing.cancel()
        await self.flush()
        await self.meters.stop()

    async def call(self) -> None:
        """Ask until the answer is final."""
        while True:
            answer = await self.ask()
            if answer is Verdict.REACHED:
                return
            if not isinstance(answer, Reservation):
                self.refused += 1
                await asyncio.sleep(self.random.random() / 10)
                continue
            await asyncio.sleep(self.random.random() / 20)
            actual = self.random.randint(1, self.task["tokens"])
            self.granted.append(actual)
            self.pending.append(self.event(actual))
            self.meters.settled(self.meters.meter(self.customer_id, self.period_start), actual)
            self.meters.end(answer, actual)

    async def ask(self) -> Reservation | Verdict:
        meter = self.meters.meter(self.customer_id, self.period_start)
        tokens, limit = self.task["tokens"], self.task["limit"]
        far = self.meters.start_far(
            meter,
            tokens,
            far_below=limits.far_below(limit, 2),
            now=asyncio.get_running_loop().time(),
            is_cut_off=False,
        )
        if far is not None:
            return far
        self.meters.take_place(meter)
        return await self.meters.start_near(meter, tokens, limit=limit)

    def event(self, tokens: int) -> Event:
        return Event(
            request_id=str(uuid4()),
            customer_id=self.customer_id,
            box_id=UUID(self.task["box_id"]),
            period_start=self.period_start,
            timestamp=self.period_start,
            model="k2p5",
            prompt_tokens=tokens,
            completion_tokens=0,
        )

    async def flush_for_ever(self) -> None:
        while True:
            await asyncio.sleep(0.2)
            await self.flush()

    async def flush(self) -> None:
        batch, self.pending = self.pending, []
        if batch:
            async with session_scope() as session:
                settled = await metering.settle(session, batch)
            self.meters.written(batch, settled.totals)


async def main() -> None:
    task = json.load(sys.stdin)
    line.REDIS_SECONDS = 20.0  # a busy machine is no lost Redis
    open_database(task["database"])
    open_redis(task["redis"])
    customer = Customer(task)
    await customer.run()
    await close_redis()
    await close_database()
    json.dump({"granted": customer.granted, "refused": customer.refused}, sys.stdout)


if __name__ == "__main__":
    asyncio.run(main())
