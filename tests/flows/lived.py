"""What a simulated time came to; light, so that whoever only adds up loads nothing else."""

from dataclasses import dataclass, field


@dataclass
class Lived:
    """What a simulated time came to."""

    customers: int
    days: int
    hops: int = 0
    syncs: int = 0
    webhooks: int = 0
    seconds: float = 0.0
    deeds: dict[str, int] = field(default_factory=dict)
    happened: dict[str, int] = field(default_factory=dict)
    worlds: list[int] = field(default_factory=list)  # how many customers are in each
    tokens: int = 0
    cpu_seconds: float = 0.0
    server_seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)
    noticed: list[str] = field(default_factory=list)
    seconds_by_part: dict[str, float] = field(default_factory=dict)
