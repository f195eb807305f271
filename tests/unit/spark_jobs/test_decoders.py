from __future__ import annotations

import pytest

from assets import ALIASES, QUOTE_ASSETS, QUOTES_LONGEST_FIRST
from classification import mandatory_field
from decoders.base import load_decoder
from k2.registry.platform import ConfigError, load_platform


@pytest.mark.parametrize("exchange", list(load_platform().exchanges))
def test_each_declared_exchange_has_its_decoder(exchange: str) -> None:
    """The decoder that the registry names is a module beside the others."""
    assert callable(load_decoder(load_platform().exchanges[exchange].decoder).decode)


def test_a_missing_decoder_says_what_to_write() -> None:
    """The message names the file."""
    with pytest.raises(ConfigError, match="spark_jobs/decoders/coinbase.py does not exist"):
        load_decoder("coinbase")


@pytest.mark.parametrize("exchange", list(load_platform().exchanges))
def test_each_schema_has_a_field_that_tells_failure(exchange: str) -> None:
    """A field that is never null exists, as NULL in it means that decoding failed."""
    assert mandatory_field(load_platform().exchanges[exchange].avro_schema())


def test_a_schema_of_optional_fields_is_refused() -> None:
    """Nothing could tell its records from broken ones."""
    with pytest.raises(ValueError, match="never null"):
        mandatory_field('{"fields": [{"name": "a", "type": ["null", "string"]}]}')


def test_a_quote_asset_stands_before_its_own_ending() -> None:
    """Of BTCFDUSD the quote is FDUSD: no asset comes after one that it ends with."""
    for place, asset in enumerate(QUOTES_LONGEST_FIRST):
        assert not any(asset.endswith(earlier) for earlier in QUOTES_LONGEST_FIRST[:place])
    assert set(QUOTES_LONGEST_FIRST) == QUOTE_ASSETS
    assert not set(ALIASES) & QUOTE_ASSETS, "trades are quoted in our names"
