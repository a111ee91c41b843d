"""What is logged is changed while the gateway runs, by those who may."""

import logging
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from gateway.api.address import UnixAddress
from gateway.api.errors import ApiError
from gateway.api.log_client import log_levels
from gateway.api.roles import Role
from gateway.api.server import ApiServer
from gateway.app.access import control_listeners, role_sockets
from gateway.observe.logs import get_logger, levels_in_force, set_levels
from tests.api.fake_controller import FakeController


@pytest.fixture(autouse=True)
def levels() -> Iterator[None]:
    before = levels_in_force()
    set_levels("info")
    yield
    set_levels(before)


async def test_levels_are_shown_and_set_by_subsystem(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    control = UnixAddress(tmp_path / "control.sock")
    server = ApiServer(control_listeners(control, None), control=FakeController())
    await server.start()
    try:
        assert await log_levels(control) == "info"
        get_logger("ike").debug("quiet")
        assert await log_levels(control, "warning,ike=debug") == "warning,ike=debug"
        get_logger("ike.v2").debug("loud")
        get_logger("controller").info("quiet_now")

        with pytest.raises(ApiError, match="'loud' is not a log level") as refused:
            await log_levels(control, "info,ike=loud")
        assert refused.value.code is grpc.StatusCode.INVALID_ARGUMENT
        assert await log_levels(control) == "warning,ike=debug"

        with pytest.raises(ApiError, match="SetLogLevels needs the role admin"):
            await log_levels(role_sockets(control)[Role.OPERATOR], "debug")
        assert await log_levels(role_sockets(control)[Role.VIEWER]) == "warning,ike=debug"
    finally:
        await server.stop(grace_s=0)

    said = {record.getMessage() for record in caplog.records if record.name.startswith("gateway.")}
    assert "loud" in said
    assert not {"quiet", "quiet_now"} & said


def test_setting_levels_undoes_what_was_set_before() -> None:
    set_levels("info,ike=debug")
    set_levels("error,api=info")

    assert levels_in_force() == "error,api=info"
    assert not logging.getLogger("gateway.ike").isEnabledFor(logging.WARNING)
