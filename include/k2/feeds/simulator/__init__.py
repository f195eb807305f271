"""An exchange simulator: Binance's and Kraken's websocket protocols over one market, whose truth it keeps.

The market runs whether anybody listens or not, as an exchange does. Its trades come from recordings or from a seeded
generator fitted to them, and can be hurt on demand. Everything listens on 127.0.0.1 only.
"""
