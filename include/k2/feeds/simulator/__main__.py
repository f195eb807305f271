"""`python -m k2.feeds.simulator --ws-port N --control-port M`: the simulated exchanges, until SIGTERM.

Addresses for the feeds: ws://127.0.0.1:N for Binance, ws://127.0.0.1:N/kraken for Kraken v1, ws://127.0.0.1:N/v2 for v2.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from pathlib import Path

from k2.feeds.simulator.binance_server import BinanceDialect
from k2.feeds.simulator.control import Control
from k2.feeds.simulator.dialect import Dialect
from k2.feeds.simulator.generator import Generator
from k2.feeds.simulator.hub import Hub
from k2.feeds.simulator.kraken_v1_server import KrakenV1Dialect
from k2.feeds.simulator.kraken_v2_server import KrakenV2Dialect
from k2.feeds.simulator.market import Market
from k2.feeds.simulator.model import load_market, load_market_model
from k2.feeds.simulator.patterns import Pattern
from k2.feeds.simulator.recordings import NoRecordings, read_recordings, symbols
from k2.feeds.simulator.replay import Replay
from k2.feeds.simulator.server import Simulator
from k2.feeds.simulator.truth import Truth
from k2.registry.platform import ConfigError
from k2.registry.runtime import RuntimeMissing, load_runtime

log = logging.getLogger("k2.feeds.simulator")


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m k2.feeds.simulator", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ws-port", type=int, required=True, help="for the websockets, on 127.0.0.1")
    parser.add_argument("--control-port", type=int, required=True, help="for control over HTTP, on 127.0.0.1")
    parser.add_argument("--home", type=Path, help="where data/simulator/ is kept; by default the home of K2_RUNTIME")
    parser.add_argument("--replay", type=Path, metavar="DIR", help="play the recordings of this folder; each exchange begins when somebody has subscribed")
    parser.add_argument("--speed", default="original", help="of a replay: a factor, or `original`")
    parser.add_argument("--seed", type=int, default=1, help="of the generator")
    parser.add_argument("--rate", action="append", default=[], help="trades per second of all exchanges, or EXCHANGE=RATE; by default as in market.yaml")
    parser.add_argument("--pattern", type=Pattern, choices=list(Pattern), default=Pattern.STEADY, help="how the generator's rate changes")
    parser.add_argument("--paused", action="store_true", help="begin when POST /resume says so")
    parser.add_argument("--v1-snapshot", action="store_true", help="Kraken v1 sends its latest trades on subscribing, as documented but never recorded")
    return parser


def rates(settings: list[str], defaults: dict[str, float]) -> dict[str, float]:
    """Trades per second of each exchange. Raises ConfigError."""
    found = dict(defaults)
    for setting in settings:
        name, _, value = setting.rpartition("=")
        try:
            rate = float(value)
        except ValueError:
            raise ConfigError(f"--rate {setting!r}: give a number of trades per second, or EXCHANGE=NUMBER") from None
        if not 0 <= rate <= 1e6 or (name and name not in defaults):
            raise ConfigError(f"--rate {setting!r}: the rate must be from 0 to 1000000 and the exchange one of {', '.join(defaults)}")
        if name:
            found[name] = rate
        else:
            total = sum(defaults.values())
            found = {exchange: rate * part / total for exchange, part in defaults.items()}
    return found


def speed_of(text: str) -> float:
    """A replay's speed. Raises ConfigError."""
    try:
        speed = 1.0 if text == "original" else float(text)
    except ValueError:
        speed = 0.0
    if not 0 < speed <= 1e6:
        raise ConfigError(f"--speed {text!r}: give a factor above 0, or `original`")
    return speed


def build(options: argparse.Namespace) -> Simulator:
    """The simulator that the options describe. Raises ConfigError, NoRecordings and RuntimeMissing."""
    folder = (options.home or load_runtime().home) / "data" / "simulator"
    market, models = load_market(), load_market_model()
    recordings = read_recordings(options.replay) if options.replay else []
    recorded = symbols(recordings)
    speed = speed_of(options.speed)
    chosen_rates = rates(options.rate, {name: venue.rate for name, venue in market.exchanges.items()})
    truths = {name: Truth(folder, name) for name in market.exchanges}
    markets = {}
    for name, venue in market.exchanges.items():
        truth = truths[name]
        for symbol, book in venue.books.items():
            truth.ledger.begin_ids(symbol, book.first_id)
        source: Generator | Replay
        if options.replay:
            source = Replay([r for r in recordings if r.exchange == name], speed)
        else:
            source = Generator(
                name,
                venue,
                models.exchanges[name],
                seed=f"{options.seed}:{truth.ledger.next_message}",
                rate=chosen_rates[name],
                pattern=options.pattern,
                prices={symbol: b.price for symbol, b in truth.ledger.books.items() if b.price},
            )
        hub = Hub(name, truth, frozenset(venue.books) | frozenset(recorded.get(name, ())))
        markets[name] = Market(name, source, truth, hub, paused=options.paused)
    v1, v2 = KrakenV1Dialect(snapshots=options.v1_snapshot), KrakenV2Dialect()
    dialects: dict[str, Dialect] = {"/stream": BinanceDialect(), "/kraken": v1, "/": v1, "/v2": v2}
    changes = {name: frozenset[str]().union(*(d.changes for d in dialects.values() if d.exchange == name)) for name in markets}
    return Simulator(markets, truths, dialects, Control(markets, truths, changes).application())


async def run(options: argparse.Namespace) -> None:
    simulator = build(options)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    log.info("exchanges on ws://127.0.0.1:%d, control on http://127.0.0.1:%d", options.ws_port, options.control_port)
    await simulator.run(options.ws_port, options.control_port, stop)


def main(argv: list[str] | None = None) -> int:
    options = arguments().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("websockets").setLevel(logging.WARNING)
    try:
        asyncio.run(run(options))
    except (ConfigError, NoRecordings, RuntimeMissing) as error:
        log.error("%s", error)
        return 78
    except OSError as error:
        log.error("%s: choose a free port or stop what holds it", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
