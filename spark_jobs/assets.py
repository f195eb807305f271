"""Names of assets: what exchanges call them, what we call them, and which of them trades are quoted in."""

from __future__ import annotations

ALIASES = {"XBT": "BTC", "XDG": "DOGE"}
"""Kraken's own names. Whole assets are replaced, never parts of a name."""

FIAT = frozenset({"USD", "EUR", "GBP", "JPY", "AUD", "CAD", "CHF", "TRY", "BRL", "PLN", "RON", "UAH", "ZAR", "MXN", "ARS", "COP", "CZK", "NGN", "RUB", "IDR"})
STABLECOINS = frozenset(
    {
        "USDT",
        "USDC",
        "FDUSD",
        "TUSD",
        "BUSD",
        "USDP",
        "USDS",
        "USD1",
        "DAI",
        "PAX",
        "PYUSD",
        "USDG",
        "RLUSD",
        "EURI",
        "AEUR",
        "EURC",
        "EURT",
        "IDRT",
        "BIDR",
        "BVND",
        "BKRW",
        "VAI",
        "UST",
    }
)
COINS = frozenset({"BTC", "ETH", "BNB", "XRP", "TRX", "DOGE", "DOT", "SOL"})
QUOTE_ASSETS = FIAT | STABLECOINS | COINS
"""What trades are quoted in."""

QUOTES_LONGEST_FIRST = tuple(sorted(QUOTE_ASSETS, key=lambda asset: (-len(asset), asset)))
"""Of BTCFDUSD the quote asset is FDUSD and not USD."""
