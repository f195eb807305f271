"""Fit the generator's numbers to recordings: `python -m k2.feeds.fit DIR` rewrites include/config/market_model.yaml.

`--print` shows the file instead. Only statistics are kept, never a trade. Every number is a quantile, a share or a
correlation of the recorded trades; `BookModel` says of what.

* A group is a run of trades of one side: in one message where the exchange groups them, else in the same instant. A CSV has
  no messages, so its trades of one side within SWEEP_US of each other count as one.
* Recordings of one exchange are joined: what one of them cannot tell (order types, steps inside a message) the other can.
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import yaml

from k2.feeds.simulator.model import PROBABILITIES, BookModel, MarketModel
from k2.feeds.simulator.recordings import NoRecordings, Recording, read_recordings
from k2.feeds.trades import Trade, plain
from k2.registry.files import CONFIG_DIR

POPULAR = 10
"""How many of the most frequent quantities are kept as such."""

SWEEP_US = 10_000
"""Widest step inside a sweep: in the recorded hour of Kraken the steps between trades of one side gather at 2-8 ms and are rare after 10."""

Group = list[Trade]


def quantiles(values: Iterable[float]) -> tuple[float, ...]:
    """The values at PROBABILITIES, to six digits; all zero when there are none."""
    ordered = sorted(values)
    if not ordered:
        return (0.0,) * len(PROBABILITIES)
    return tuple(float(f"{ordered[min(int(p * len(ordered)), len(ordered) - 1)]:.6g}") for p in PROBABILITIES)


def groups_of(trades: Sequence[Trade], within_us: int) -> list[Group]:
    """Runs of trades of one side whose neighbours are at most `within_us` apart."""
    groups: list[Group] = []
    for trade in trades:
        last = groups[-1][-1] if groups else None
        if last is not None and trade.side == last.side and trade.time_us - last.time_us <= within_us:
            groups[-1].append(trade)
        else:
            groups.append([trade])
    return groups


def memory(values: Sequence[float]) -> float:
    """Correlation of each value with the next one, taken on their normal scores; ties share their mean rank."""
    if len(values) < 3:
        return 0.0
    ordered = sorted(values)
    places: dict[float, tuple[int, int]] = {}
    for place, value in enumerate(ordered):
        places[value] = (places.get(value, (place, place))[0], place)
    normal = statistics.NormalDist()
    scores = [normal.inv_cdf((sum(places[v]) / 2 + 0.5) / len(values)) for v in values]
    if len(set(scores)) < 2:
        return 0.0
    return statistics.correlation(scores[:-1], scores[1:])


def _decimals(prices: Iterable[str]) -> int:
    return max(len(plain(price).partition(".")[2]) for price in prices)


def _main_book(recordings: Sequence[Recording]) -> str:
    return Counter(trade.symbol for recording in recordings for trade in recording.trades).most_common(1)[0][0]


def fit_book(recordings: Sequence[Recording]) -> BookModel:
    """The numbers of one exchange, from its recordings' most traded book."""
    symbol = _main_book(recordings)
    own = [r for r in recordings if any(t.symbol == symbol for t in r.trades)]
    message_per_trade = all(len(m.trades) == 1 for r in own if r.grouped for m in r.messages)
    longest = max(own, key=lambda r: len(r.trades))
    groups = groups_of([t for t in longest.trades if t.symbol == symbol], 0 if message_per_trade else SWEEP_US)
    trades = [t for g in groups for t in g]
    tick = 10.0 ** -_decimals(t.price for t in trades)
    starts = [g[0].time_us for g in groups]
    gaps = [b - a for a, b in zip(starts, starts[1:], strict=False)]
    prices = [round(float(t.price) / tick) for t in trades]
    firsts = set(itertools.accumulate(len(g) for g in groups))
    moves = [(i in firsts, abs(prices[i] - prices[i - 1])) for i in range(1, len(prices))]
    steps, inner = [move for first, move in moves if first], [move for first, move in moves if not first]
    real_messages = [m for r in own if r.grouped for m in r.messages]
    inner_gaps = [b.time_us - a.time_us for m in real_messages for a, b in zip(m.trades, m.trades[1:], strict=False)]
    counts = Counter(t.quantity for t in trades)
    popular = [(float(q), n / len(trades)) for q, n in counts.most_common(POPULAR) if n > 1 and n / len(trades) >= 0.001]
    known = {q for q, _ in popular}
    order_types = [t.order_type for m in real_messages for t in m.trades if t.order_type]
    sides = [g[0].side for g in groups]
    return BookModel(
        trades_per_second=_digits(len(trades) / max(1e-6, (trades[-1].time_us - trades[0].time_us) / 1e6)),
        message_per_trade=message_per_trade,
        time_unit_us=1000 if all(t.time_us % 1000 == 0 for r in own if r.grouped for t in r.trades) else 1,
        gap_us=quantiles(gaps),
        gap_memory=_digits(memory(gaps)),
        group_size=quantiles(len(g) for g in groups),
        inner_gap_us=quantiles(inner_gaps),
        delay_us=quantiles({m.trades[-1].time_us: max(0, m.event_us - m.trades[-1].time_us) for m in reversed(real_messages)}.values()),
        quantity=quantiles(float(t.quantity) for t in trades if float(t.quantity) not in known),
        popular_quantities=tuple((q, _digits(share)) for q, share in popular),
        reference_price=_digits(statistics.median(float(t.price) for t in trades)),
        tick=tick,
        moved_share=_share(step > 0 for step in steps),
        step_ticks=quantiles(step for step in steps if step),
        inner_moved_share=_share(step > 0 for step in inner),
        inner_step_ticks=quantiles(step for step in inner if step),
        buy_share=_share(side == "b" for side in sides),
        same_side_share=_share(a == b for a, b in zip(sides, sides[1:], strict=False)),
        market_order_share=_share(kind == "m" for kind in order_types) if order_types else None,
    )


def _digits(value: float) -> float:
    return float(f"{value:.6g}")


def _share(flags: Iterable[bool]) -> float:
    known = list(flags)
    return _digits(math.fsum(known) / len(known)) if known else 0.0


def fit(recordings: Sequence[Recording]) -> MarketModel:
    """The numbers of every exchange that was recorded."""
    exchanges = sorted({r.exchange for r in recordings})
    return MarketModel(exchanges={name: fit_book([r for r in recordings if r.exchange == name]) for name in exchanges})


def to_yaml(model: MarketModel, recordings: Sequence[Recording]) -> str:
    """The file's text: the same numbers always give the same text."""
    sources = "".join(f"#   {r.file}: {len(r.trades)} trades\n" for r in recordings)
    body = yaml.safe_dump(model.model_dump(mode="json"), sort_keys=False, default_flow_style=None, width=160)
    places = ", ".join(f"{p:g}" for p in PROBABILITIES)
    return f"# Fitted by: python -m k2.feeds.fit DIR. Do not edit. From\n{sources}# Lists are quantiles at {places}.\n{body}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m k2.feeds.fit", description="Fit the market generator's numbers to recordings.")
    parser.add_argument("folder", type=Path, help="where the recordings are")
    parser.add_argument("--print", action="store_true", dest="show", help="show the result and write nothing")
    options = parser.parse_args(arguments)
    try:
        recordings = read_recordings(options.folder)
    except NoRecordings as error:
        print(error, file=sys.stderr)
        return 1
    text = to_yaml(fit(recordings), recordings)
    if options.show:
        print(text, end="")
    else:
        (CONFIG_DIR / "market_model.yaml").write_text(text)
        print(f"wrote {CONFIG_DIR / 'market_model.yaml'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
