"""What `up` takes over from the last time."""

from __future__ import annotations

import pytest

from k2.registry.runtime import Runtime
from k2.stack import control
from k2.stack.errors import K2Error
from k2.stack.home import Home


@pytest.mark.parametrize(("real", "asked", "refused"), [(True, False, "hold real trades, and generated"), (False, True, "hold generated trades, and real")])
def test_real_and_generated_trades_never_share_tables(home: Home, runtime: Runtime, real: bool, asked: bool, refused: str) -> None:
    """A home that was started with the one refuses the other, before anything is started or written."""
    last = runtime.model_copy(update={"exchange_simulator": None} if real else {})
    home.runtime_file.write_text(last.model_dump_json())
    with pytest.raises(K2Error, match=f"{refused} ones would come among them: set K2_HOME to another folder"):
        control.up(home.path, real_exchanges=asked)
    assert home.runtime() == last
