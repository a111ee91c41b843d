"""A client of charon's vici socket, as far as loading and listing connections needs one.

Packets are a 32-bit length and a type; messages are sections, key-value pairs and lists, each element with
its type before it, names with an 8-bit and values with a 16-bit length (README of strongSwan's vici plugin).
"""

import socket
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from gateway.ipsec.errors import GatewayError

_REQUEST, _RESPONSE, _REGISTER, _UNREGISTER, _CONFIRM, _EVENT = 0, 1, 3, 4, 5, 7
_SECTION, _SECTION_END, _VALUE, _LIST, _ITEM, _LIST_END = 1, 2, 3, 4, 5, 6
_LENGTH: Final = struct.Struct("!I")
_SHORT: Final = struct.Struct("!H")
_PATIENCE_S: Final = 60.0


class ViciError(GatewayError):
    """charon refused a command."""


def encode(message: Mapping[str, object]) -> bytes:
    """Return a message's elements."""
    parts = bytearray()
    for key, value in message.items():
        named = bytes((len(key),)) + key.encode()
        if isinstance(value, Mapping):
            parts += bytes((_SECTION,)) + named + encode(value) + bytes((_SECTION_END,))
        elif isinstance(value, list):
            parts += bytes((_LIST,)) + named
            for item in value:
                parts += bytes((_ITEM,)) + _text(str(item))
            parts += bytes((_LIST_END,))
        else:
            parts += bytes((_VALUE,)) + named + _text(str(value))
    return bytes(parts)


def _text(value: str) -> bytes:
    return _SHORT.pack(len(value.encode())) + value.encode()


class Vici:
    """One connection to charon; a context."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(_PATIENCE_S)
        self._socket.connect(str(path))

    def __enter__(self) -> "Vici":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def call(self, command: str, message: Mapping[str, object] | None = None) -> bytes:
        """Run a command and return the elements of its answer.

        Raises:
            ViciError: It failed.
        """
        self._send(_REQUEST, command, encode(message or {}))
        kind, answer = self._receive()
        if kind != _RESPONSE or b"success\x00\x02no" in answer:
            raise ViciError(f"charon refused {command}: {answer[:200]!r}")
        return answer

    def stream(self, command: str, event: str) -> Iterator[bytes]:
        """Run a command whose results are events; yield the elements of each."""
        self._send(_REGISTER, event, b"")
        kind, _ = self._receive()
        if kind != _CONFIRM:
            raise ViciError(f"charon has no event {event}")
        self._send(_REQUEST, command, b"")
        while True:
            kind, answer = self._receive()
            if kind == _EVENT:
                yield answer
                continue
            break
        self._send(_UNREGISTER, event, b"")
        self._receive()

    def _send(self, kind: int, name: str, contents: bytes) -> None:
        packet = bytes((kind, len(name))) + name.encode() + contents
        self._socket.sendall(_LENGTH.pack(len(packet)) + packet)

    def _receive(self) -> tuple[int, bytes]:
        (length,) = _LENGTH.unpack(self._exactly(_LENGTH.size))
        packet = self._exactly(length)
        return packet[0], packet[1:]

    def _exactly(self, count: int) -> bytes:
        parts = bytearray()
        while len(parts) < count:
            part = self._socket.recv(count - len(parts))
            if not part:
                raise ViciError("charon closed the connection")
            parts += part
        return bytes(parts)
