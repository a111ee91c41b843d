"""The keys of one connection's SAs, for a packet analyser: on request, and only where that is allowed."""

from gateway.controller.core import Core
from gateway.controller.facade import KeyTables
from gateway.ipsec.secret import Secret
from gateway.observe.keylog import KeyLogError, format_esp_sa, format_ike_sa
from gateway.observe.logs import get_logger

_log = get_logger(__name__)


def export_keys(core: Core, connection: str) -> KeyTables:
    """Return the rows of every SA of a connection that has keys, and say so at WARNING."""
    ike_rows: list[Secret] = []
    esp_rows: list[Secret] = []
    left_out: list[str] = []
    ike_sas, child_sas = core.sas_of(connection)
    for ike_sa in ike_sas:
        keys = core.ike_keys(ike_sa.ike_sa_id)
        try:
            if keys is not None:
                ike_rows.append(Secret(format_ike_sa(ike_sa.spi_i, ike_sa.spi_r, keys).encode()))
        except KeyLogError as error:
            left_out.append(f"IKE SA {ike_sa.ike_sa_id}: {error}")
    for child_sa in child_sas:
        for sa in (child_sa.inbound, child_sa.outbound):
            try:
                if sa is not None:
                    esp_rows.append(Secret(format_esp_sa(sa).encode()))
            except KeyLogError as error:
                left_out.append(f"Child SA {child_sa.child_sa_id}: {error}")
    _log.warning("keys_exported", connection=connection, ike_sas=len(ike_rows), esp_sas=len(esp_rows))
    return KeyTables(ike_sas=tuple(ike_rows), esp_sas=tuple(esp_rows), left_out=tuple(left_out))
