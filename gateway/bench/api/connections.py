"""What is applied: connections of one hub with many spokes, as a message of ours and as vici has them."""

from typing import Final

from gateway.api.control.v1 import connection_pb2 as cpb

MOST: Final = 30_000
"""So many have protected networks of their own in 10.128.0.0/9."""
HUB: Final = "192.0.2.1"
HUB_ID: Final = "hub.example"
IKE: Final = "aes256gcm16-prfsha384-x25519"
ESP: Final = "aes256gcm16-x25519"
HUB_NET: Final = "10.0.0.0/16"


def name(number: int) -> str:
    """Return the name of a connection."""
    return f"spoke-{number:05}"


def spoke(number: int) -> str:
    """Return the outer address of a spoke."""
    return f"100.{64 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"


def spoke_id(number: int) -> str:
    """Return the identity of a spoke."""
    return f"{name(number)}.example"


def spoke_net(number: int) -> str:
    """Return what is behind a spoke."""
    return f"10.{128 + (number >> 8)}.{number & 255}.0/24"


def secret(number: int) -> str:
    """Return the pre-shared key of a spoke."""
    return f"a key of some length, number {number}"


def message(number: int, *, dpd_delay_s: int = 30) -> cpb.Connection:
    """Return a connection as it is applied."""
    connection = cpb.Connection(
        name=name(number),
        local=cpb.Side(address=HUB, id=HUB_ID),
        remote=cpb.Side(address=spoke(number), id=spoke_id(number)),
        ike=cpb.Ike(proposals=[IKE]),
        children=[
            cpb.Child(
                name="lan",
                local_ts=[HUB_NET],
                remote_ts=[spoke_net(number)],
                esp=cpb.Esp(proposals=[ESP]),
            )
        ],
    )
    connection.local.auth.psk.value = secret(number)
    connection.ike.dpd_delay.seconds = dpd_delay_s
    return connection


def vici_connection(number: int, *, dpd_delay_s: int = 30) -> dict[str, object]:
    """Return the same as the argument of vici's `load-conn`."""
    return {
        name(number): {
            "version": "2",
            "local_addrs": [HUB],
            "remote_addrs": [spoke(number)],
            "proposals": [IKE],
            "dpd_delay": str(dpd_delay_s),
            "local": {"auth": "psk", "id": HUB_ID},
            "remote": {"auth": "psk", "id": spoke_id(number)},
            "children": {
                "lan": {
                    "local_ts": [HUB_NET],
                    "remote_ts": [spoke_net(number)],
                    "esp_proposals": [ESP],
                }
            },
        }
    }


def vici_secret(number: int) -> dict[str, object]:
    """Return the key as the argument of vici's `load-shared`."""
    return {
        "id": name(number),
        "type": "IKE",
        "data": secret(number),
        "owners": [HUB_ID, spoke_id(number)],
    }
