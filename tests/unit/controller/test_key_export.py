"""Keys for a packet analyser: only where it is allowed, of one connection, and announced."""

from dataclasses import replace

import pytest

from gateway.controller.facade import ControlError, ControlErrorReason
from tests.unit.controller.gateways import Gateway


async def test_no_key_is_told_unless_the_controller_was_started_so(paris: Gateway, tokyo: Gateway) -> None:
    await paris.up()

    with pytest.raises(ControlError, match="--allow-key-export") as caught:
        paris.controller.export_keys("paris-tokyo")

    assert caught.value.reason is ControlErrorReason.KEY_EXPORT_OFF


async def test_both_ends_export_the_same_keys_of_every_sa(paris: Gateway, tokyo: Gateway) -> None:
    await paris.up()
    rows = []
    for gateway in (paris, tokyo):
        controller = gateway.controller
        controller._options = replace(controller._options, allows_key_export=True)
        tables = controller.export_keys("paris-tokyo")
        rows.append(([row.reveal() for row in tables.ike_sas], {row.reveal() for row in tables.esp_sas}))
        assert tables.left_out == ()

    assert rows[0] == rows[1]
    assert (len(rows[0][0]), len(rows[0][1])) == (1, 2)
    with pytest.raises(ControlError, match="no connection"):
        paris.controller.export_keys("elsewhere")
