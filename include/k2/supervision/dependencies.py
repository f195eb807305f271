"""Whether what a stream depends on answers the watchdog. A driver's word alone says nothing about others."""

from __future__ import annotations

from datetime import datetime

from k2.registry.observed import Observation
from k2.supervision.conclude import READING_LIMIT, unusable

KAFKA, CATALOG, SCHEMA_REGISTRY = "kafka", "catalog", "schema_registry"


def answers(observation: Observation, dependency: str, now: datetime) -> bool | None:
    """True, False, or None when the watchdog has not asked lately.

    Kafka is asked for the head of a Bronze stream: a head that could not be had for another reason is an answer too. What
    is wanted is in the database that holds the catalog.
    """
    if dependency == KAFKA:
        head = observation.head
        if abs(now - head.at) > READING_LIMIT:
            return None
        return head.silent != KAFKA
    if dependency == CATALOG:
        return None if unusable(observation.wanted, now) else True
    if dependency == SCHEMA_REGISTRY and observation.registry is not None:
        return unusable(observation.registry, now) is None
    return None
