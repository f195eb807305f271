"""From the exchanges' websockets to Kafka: feed handlers, an exchange simulator, and the audit of what a feed missed."""
