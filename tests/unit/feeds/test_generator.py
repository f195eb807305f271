"""The generated market: deterministic, in order, and like the recorded one."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2.feeds import fit
from k2.feeds.simulator.generator import PRICE_BAND, Generator
from k2.feeds.simulator.model import PROBABILITIES, Quantiles, load_market, load_market_model
from k2.feeds.simulator.patterns import Pattern, factor
from k2.feeds.simulator.source import Planned
from k2.feeds.trades import Trade

EXCHANGES = ("binance", "kraken")
MARKET, MODELS = load_market(), load_market_model()


def generator(exchange: str, *, seed: str = "1", rate: float | None = None, pattern: Pattern = Pattern.STEADY) -> Generator:
    venue = MARKET.exchanges[exchange]
    return Generator(exchange, venue, MODELS.exchanges[exchange], seed=seed, rate=venue.rate if rate is None else rate, pattern=pattern)


def play(source: Generator, seconds: float) -> list[Planned]:
    messages = []
    while (due := source.next_due()) is not None and due < seconds * 1e6:
        messages.append(source.take())
    return messages


def trades_of(messages: list[Planned]) -> list[Trade]:
    return [trade for message in messages for trade in message.trades]


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_a_seed_is_a_market(exchange: str) -> None:
    """The same seed gives the same messages; another seed gives others."""
    first, again, other = (play(generator(exchange, seed=seed), 60) for seed in ("7", "7", "8"))
    assert first == again
    assert first != other


@settings(max_examples=25)
@given(st.sampled_from(EXCHANGES), st.integers(), st.sampled_from(list(Pattern)), st.floats(1, 2000))
def test_times_never_go_back(exchange: str, seed: int, pattern: Pattern, rate: float) -> None:
    """In each book the trades' times rise, in the exchange's own unit, and none lies after its message."""
    messages = list(itertools.islice(_endless(generator(exchange, seed=str(seed), rate=rate, pattern=pattern)), 200))
    for symbol in MARKET.exchanges[exchange].books:
        times = [t.time_us for t in trades_of(messages) if t.symbol == symbol]
        assert times == sorted(times)
    assert all(t.time_us <= m.due_us for m in messages for t in m.trades)
    assert all(t.time_us % MODELS.exchanges[exchange].time_unit_us == 0 for t in trades_of(messages))


def _endless(source: Generator) -> itertools.chain[Planned]:
    return itertools.chain.from_iterable([source.take()] for _ in itertools.count())


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_rate_is_kept(exchange: str) -> None:
    """Over ten minutes the rate is the one that was asked for, within a sixth: bursts are rare and large."""
    assert len(trades_of(play(generator(exchange, rate=30), 600))) / 600 == pytest.approx(30, rel=0.16)


def test_nothing_at_rate_zero_and_again_afterwards() -> None:
    """A market at rate 0 has nothing due until a new rate is set."""
    source = generator("kraken", rate=0)
    assert source.next_due() is None
    source.set_rate(100, Pattern.STEADY, 5_000_000)
    assert source.next_due() >= 5_000_000


def test_gradual_and_spike() -> None:
    """Gradual begins at a tenth and ends at twice the rate; a spike is eight times the rate for 30 s."""
    gradual = Counter(int(m.due_us // 60_000_000) for m in play(generator("kraken", pattern=Pattern.GRADUAL), 660))
    assert gradual[10] > 4 * gradual[0]
    spike = play(generator("kraken", pattern=Pattern.SPIKE), 290)
    inside = sum(120_000_000 <= m.due_us < 150_000_000 for m in spike) / 30
    outside = sum(not 120_000_000 <= m.due_us < 150_000_000 for m in spike) / 260
    assert 4 < inside / outside < 14
    assert (factor(Pattern.GRADUAL, 0), factor(Pattern.GRADUAL, 10_000)) == (0.1, 2.0)


@pytest.mark.parametrize(("exchange", "symbol"), [("binance", "BTCUSDT"), ("kraken", "BTC/USD")])
def test_like_the_recorded_market(exchange: str, symbol: str) -> None:
    """Fitting what is generated at the recorded rate gives the numbers that it was generated from, nearly."""
    model, venue = MODELS.exchanges[exchange], MARKET.exchanges[exchange]
    own = venue.model_copy(update={"books": {symbol: venue.books[symbol].model_copy(update={"first_price": model.reference_price})}})
    source = Generator(exchange, own, model, seed="1", rate=model.trades_per_second, pattern=Pattern.STEADY)
    trades = trades_of(play(source, 3600 if exchange == "kraken" else 240))
    groups = fit.groups_of(trades, 0 if model.message_per_trade else fit.SWEEP_US)
    ties = sum(a.time_us == b.time_us for a, b in zip(trades, trades[1:], strict=False)) / len(trades)
    if exchange == "binance":
        assert 0.5 < ties < 0.75
    sides = [g[0].side for g in groups]
    assert sum(side == "b" for side in sides) / len(sides) == pytest.approx(model.buy_share, abs=0.12)
    sizes = Quantiles(fit.quantiles(len(g) for g in groups))
    for probability in (0.5, 0.8, 0.9, 0.95):
        assert sizes.at(probability) == pytest.approx(Quantiles(model.group_size).at(probability), rel=0.5, abs=1)
    starts = [g[0].time_us for g in groups]
    gaps = Quantiles(fit.quantiles(b - a for a, b in zip(starts, starts[1:], strict=False)))
    for probability in (0.5, 0.7, 0.9, 0.95):
        assert gaps.at(probability) == pytest.approx(Quantiles(model.gap_us).at(probability), rel=0.4)
    quantities = Counter(float(t.quantity) for t in trades)
    (popular, share), *_ = model.popular_quantities
    assert quantities[popular] / len(trades) == pytest.approx(share, rel=0.3)
    if model.market_order_share is not None:
        assert sum(g[0].order_type == "m" for g in groups) / len(groups) == pytest.approx(model.market_order_share, abs=0.05)


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_message_grouping(exchange: str) -> None:
    """Binance sends each trade alone; Kraken sends a sweep of one book and one side as one message."""
    messages = play(generator(exchange), 60)
    sizes = Counter(len(m.trades) for m in messages)
    if exchange == "binance":
        assert set(sizes) == {1}
    else:
        assert sizes[1] > sizes[2] > 0
        assert all(len({(t.symbol, t.side) for t in m.trades}) == 1 for m in messages)


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_texts_and_prices(exchange: str) -> None:
    """Numbers have the exchange's decimals, are above 0, and no price runs away."""
    venue = MARKET.exchanges[exchange]
    for trade in trades_of(play(generator(exchange, rate=200), 30)):
        book = venue.books[trade.symbol]
        decimals = venue.price_text_decimals or book.price_decimals
        assert len(trade.price.partition(".")[2]) == decimals
        assert len(trade.quantity.partition(".")[2]) == venue.quantity_text_decimals
        assert float(trade.quantity) > 0
        assert abs(float(trade.price) / book.first_price - 1) < PRICE_BAND + 0.05


def test_quantiles() -> None:
    """Known probabilities give their values, those between lie between, and the mean is that of the curve."""
    values = tuple(float(i) for i in range(len(PROBABILITIES)))
    curve = Quantiles(values)
    assert [curve.at(p) for p in PROBABILITIES] == pytest.approx(values)
    assert values[8] < curve.at(0.55) < values[9]
    assert curve.mean() == pytest.approx(sum(curve.at((i + 0.5) / 20_000) for i in range(20_000)) / 20_000, rel=1e-3)
    assert curve.whole_mean() == pytest.approx(sum(curve.whole((i + 0.5) / 20_000) for i in range(20_000)) / 20_000, rel=1e-2)
