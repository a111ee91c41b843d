"""The selector of the 4500 group, run as the kernel runs it, and the errors that say what to do."""

import pytest

from gateway.host.errors import MissingCapabilityError, PortInUseError
from gateway.host.sockets import ESP_SLOT, IKE_SLOT, MARKER_SELECTOR, BpfInstruction


def run_classic_bpf(program: tuple[BpfInstruction, ...], packet: bytes) -> int:
    """Interpret the instructions that the selector has; a load beyond the end returns 0, as in the kernel."""
    accumulator, counter = 0, 0
    while True:
        code, if_true, if_false, constant = program[counter]
        counter += 1
        match code:
            case 0x80:
                accumulator = len(packet)
            case 0x20:
                if constant + 4 > len(packet):
                    return 0
                accumulator = int.from_bytes(packet[constant : constant + 4], "big")
            case 0x35:
                counter += if_true if accumulator >= constant else if_false
            case 0x15:
                counter += if_true if accumulator == constant else if_false
            case 0x06:
                return constant
            case _:
                raise AssertionError(f"unknown instruction {code:#x}")


@pytest.mark.parametrize(
    ("payload", "slot"),
    [
        (bytes(4) + b"an IKE message", IKE_SLOT),
        (bytes(4), IKE_SLOT),
        (b"\0\0\1\0 an SPI of 256", ESP_SLOT),
        (b"\0\0\0\1 an SPI that is reserved", ESP_SLOT),
        (b"\x80\0\0\0 an SPI", ESP_SLOT),
        (b"\xff", ESP_SLOT),
        (b"\xff" * 4, ESP_SLOT),
        (b"", ESP_SLOT),
        (b"\0\0\0", ESP_SLOT),
    ],
)
def test_selector_sends_only_the_marker_to_ike(payload: bytes, slot: int) -> None:
    assert run_classic_bpf(MARKER_SELECTOR, payload) == slot


def test_every_jump_of_the_selector_stays_inside() -> None:
    for number, (code, if_true, if_false, _) in enumerate(MARKER_SELECTOR):
        if code in (0x35, 0x15):
            assert number + 1 + max(if_true, if_false) < len(MARKER_SELECTOR)
    assert MARKER_SELECTOR[-1][0] == 0x06


def test_port_in_use_names_the_port_and_the_way_to_its_owner() -> None:
    error = PortInUseError("192.0.2.1", 4500)

    assert "UDP port 4500 on 192.0.2.1" in str(error)
    assert "ss -lunp 'sport = :4500'" in str(error)


def test_missing_capability_says_what_to_do() -> None:
    error = MissingCapabilityError(("CAP_NET_ADMIN", "CAP_NET_RAW"), "the software datapath")

    assert str(error) == (
        "the software datapath needs CAP_NET_ADMIN and CAP_NET_RAW: run it as root, or give the service "
        "AmbientCapabilities=CAP_NET_ADMIN CAP_NET_RAW"
    )
