"""Native Spark expressions that decoders and rules share. None of them raises: what cannot be read becomes NULL."""

from __future__ import annotations

from pyspark.sql import Column
from pyspark.sql import functions as f

from assets import ALIASES, QUOTE_ASSETS, QUOTES_LONGEST_FIRST

AMOUNT = "decimal(38,8)"
PLAIN_AMOUNT = r"^[0-9]{1,30}(\.[0-9]{1,8})?$"
"""What exchanges send; all other forms take the slow way."""
NUMBER = r"^([+-]?)([0-9]*)\.?([0-9]*)(?:[eE]([+-]?[0-9]{1,3}))?$"
MAX_INTEGER_DIGITS, MAX_DECIMALS = 30, 8
SECONDS = r"^[0-9]{1,12}(\.[0-9]{1,6}0*)?$"


def amount(text: Column) -> Column:
    """A decimal text as DECIMAL(38,8). Exact for every text without an `amount_fault`."""
    return text.try_cast(AMOUNT)


def amount_fault(name: str, text: Column) -> Column:
    """Why a text is no positive number that DECIMAL(38,8) holds exactly, as an error reason; NULL when it is one."""
    parts = f.struct(*(f.regexp_extract(text, NUMBER, group).alias(part) for group, part in enumerate(("sign", "whole", "decimals", "exponent"), 1)))

    def of_parts(number: Column) -> Column:
        decimals, digits = number["decimals"], f.concat(number["whole"], number["decimals"])
        power = f.coalesce(number["exponent"].try_cast("int"), f.lit(0))
        significant = f.length(f.regexp_replace(digits, "0+$", ""))
        scale = f.length(decimals) - (f.length(digits) - significant) - power
        integer_digits = f.length(f.regexp_replace(digits, "^0+", "")) - f.length(decimals) + power
        return (
            f.when(~f.coalesce(text.rlike(NUMBER) & (f.length(digits) > 0), f.lit(False)), f.lit(f"{name}_not_a_number"))
            .when((significant == 0) | (number["sign"] == "-"), f.lit(f"{name}_must_be_positive"))
            .when(integer_digits > MAX_INTEGER_DIGITS, f.lit(f"{name}_too_large"))
            .when(scale > MAX_DECIMALS, f.lit(f"{name}_too_precise"))
        )

    positive = f.when(~text.rlike("[1-9]"), f.lit(f"{name}_must_be_positive"))
    # A lambda evaluates its parts once. Written out they would be most of the plan, which is compiled for each batch.
    return f.when(text.rlike(PLAIN_AMOUNT), positive).otherwise(f.transform(f.array(parts), of_parts)[0])


def micros_of_seconds(text: Column) -> Column:
    """A text of seconds with up to six decimals as microseconds, exactly; NULL for any other text."""
    return f.when(text.rlike(SECONDS), (text.try_cast("decimal(18,6)") * 1_000_000).try_cast("bigint"))


def micros_of_millis(millis: Column) -> Column:
    """Milliseconds as microseconds; NULL beyond what a BIGINT holds."""
    return f.try_multiply(millis, f.lit(1000))


def canonical_asset(asset: Column) -> Column:
    """Our name of an exchange's asset."""
    known = f.when(f.lit(False), asset)
    for theirs, ours in ALIASES.items():
        known = known.when(asset == theirs, f.lit(ours))
    return known.otherwise(asset)


def quote_suffix(symbol: Column) -> Column:
    """The longest known quote asset that ends a symbol written without a separator; NULL when none does."""
    found = f.when(f.lit(False), symbol)
    for quote in QUOTES_LONGEST_FIRST:
        found = found.when(symbol.endswith(quote) & (f.length(symbol) > len(quote)), f.lit(quote))
    return found


def known_quote(asset: Column) -> Column:
    """The asset, when trades are quoted in it; else NULL."""
    return f.when(asset.isin(*sorted(QUOTE_ASSETS)), asset)
