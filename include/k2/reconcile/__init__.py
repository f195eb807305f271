"""Proof by content that nothing was lost or doubled: Kafka = Bronze, and Bronze = Silver + DLQ, record by record."""
