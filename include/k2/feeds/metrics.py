"""What a feed handler tells Prometheus, on 127.0.0.1 only."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, disable_created_metrics, start_http_server


class FeedMetrics:
    """The metrics of one exchange's feed handler. Counters get `_total` appended when exposed."""

    def __init__(self, exchange: str, topic: str) -> None:
        disable_created_metrics()
        self.registry = CollectorRegistry()
        own = f"k2_{exchange}"
        self.connected = Gauge(f"{own}_connection_status", "1 while connected and subscribed, else 0", registry=self.registry)
        self.messages = Counter(f"{own}_messages_received", "Websocket frames received", registry=self.registry)
        self.reconnects = Counter(f"{own}_reconnects", "Connections opened after the first", registry=self.registry)
        self.last_message = Gauge(f"{own}_last_message_timestamp_seconds", "When the last frame arrived, s since the epoch", registry=self.registry)
        self.trades = Counter(f"{own}_trades_received", "Trades in the frames", registry=self.registry)
        self.malformed = Counter(f"{own}_malformed", "Frames, or trades in a frame, that are not what the protocol sends", registry=self.registry)
        self.rejected = Counter(f"{own}_records_rejected", "Trades that do not fit the Avro schema", registry=self.registry)
        self.refusals = Counter(f"{own}_subscriptions_refused", "Subscriptions that the exchange refused", registry=self.registry)
        self.unexpected = Counter(f"{own}_unexpected_symbol_trades", "Trades of a symbol that was not asked for; they are kept", registry=self.registry)
        self.events = Counter(f"{own}_events", "Frames that carry no trade", ["event"], registry=self.registry)
        labels = {"exchange": exchange, "topic": topic}
        produced = Counter("k2_kafka_messages_produced", "Records that Kafka acknowledged", list(labels), registry=self.registry)
        errors = Counter("k2_kafka_produce_errors", "Records that Kafka refused", list(labels), registry=self.registry)
        waits = Counter("k2_kafka_backpressure_waits", "Times that reading paused because the producer's queue was full", list(labels), registry=self.registry)
        self.produced, self.produce_errors, self.backpressure = (c.labels(**labels) for c in (produced, errors, waits))

    def serve(self, port: int) -> None:
        """Serve them on 127.0.0.1:port. Raises OSError when the port is taken."""
        start_http_server(port, addr="127.0.0.1", registry=self.registry)
