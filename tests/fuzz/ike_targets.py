"""Fuzz targets of the IKE core: the codec, reassembly, the endpoint under strangers and under its peer."""

import contextlib
from functools import cache

from cryptography.hazmat.primitives.asymmetric import ed25519

from gateway.ike.crypto.revocation import read_crl
from gateway.ike.errors import PeerError
from gateway.ike.events import IkeSaEstablished
from gateway.ike.path import Path
from gateway.ike.wire import notify
from gateway.ike.wire.header import ExchangeType, HeaderFlag, IkeHeader, parse_header
from gateway.ike.wire.message import (
    EncryptedFragment,
    encode_payloads,
    first_type,
    parse_message,
    parse_payloads,
)
from gateway.ike.wire.payloads import AuthPayload, IdiPayload, IdrPayload, SaPayload, find_payload
from gateway.ike.wire.protected import MAX_FRAGMENTS, Plaintext
from gateway.ike.wire.reassembly import MAX_REASSEMBLED_BYTES, Reassembly
from gateway.ike.wire.rules import check_rules
from gateway.ipsec.connection import Fragmentation
from tests.fakes.pair import ALICE, BOB, Pair
from tests.fakes.pki import crl, issue, trusting, with_certificate, with_keys
from tests.fuzz.target import Target, choice
from tests.fuzz.test_endpoint import MAX_ANSWERS, STARTS, is_arrival, recorded
from tests.vectors.read import ike_datagrams, ikev2_captures

# --- the codec ----------------------------------------------------------------------------------


@cache
def captured():
    """The IKE messages of every capture, and those of a pair of ours."""
    messages = [datagram for path in ikev2_captures() for datagram in ike_datagrams(path)]
    return [*messages, *(opened.message.datagram for opened in recorded())]


def look_at(payloads):
    """Do with payloads what exchanges do first."""
    for payload in payloads:
        if isinstance(payload, SaPayload):
            for item in payload.proposals:
                assert item.proposal is None or isinstance(str(item.proposal), str)
        if isinstance(payload, IdiPayload | IdrPayload):
            with contextlib.suppress(PeerError):
                assert payload.identity.data == payload.data
    with contextlib.suppress(PeerError):
        check_rules(payloads, ExchangeType.IKE_AUTH, is_response=False)


def run_message(data):
    with contextlib.suppress(PeerError):
        message = parse_message(data)
        assert message.header.length == len(data)
        if message.protected is not None:
            assert message.protected.associated_bytes <= len(data)
        look_at(message.payloads)


def chains():
    for opened in recorded():
        yield bytes([first_type(opened.payloads)]) + encode_payloads(opened.payloads)
    for datagram in captured():
        yield datagram[16:17] + datagram[28:]


def run_payloads(data):
    """What was read and written again reads the same."""
    with contextlib.suppress(PeerError):
        payloads = parse_payloads(data[0] if data else 0, data[1:])
        look_at(payloads)
        written = encode_payloads(payloads)
        assert parse_payloads(first_type(payloads), written) == payloads


NOTIFY_PARSERS = (
    notify.parse_ke_method,
    notify.parse_window_size,
    notify.parse_signature_hashes,
    notify.parse_ipcomp,
    notify.parse_seconds,
    notify.parse_address,
    notify.parse_ppk_identity,
)


def run_notify(data):
    with contextlib.suppress(PeerError):
        choice(data[0] if data else 0, NOTIFY_PARSERS)(data[1:])


def run_reassembly(data):
    """Three bytes a fragment: number, total, and how much it holds; what is held stays bounded."""
    limit = 1024 if len(data) % 2 else MAX_REASSEMBLED_BYTES
    reassembly = Reassembly(limit)
    for at in range(0, len(data) - 2, 3):
        number, total, size = data[at] % 80, data[at + 1] % 80, data[at + 2] * 8
        if not 0 < number <= total:
            continue  # no such fragment comes out of `parse_message`
        fragment = EncryptedFragment(
            offset=28, first_payload=int(number == 1), number=number, total=total, body=b""
        )
        with contextlib.suppress(PeerError):
            whole = reassembly.add(fragment, Plaintext(int(number == 1), bytes([number]) * size))
            if whole is not None:
                assert whole.first_payload == 1
                assert list(whole.data) == sorted(whole.data)
                return
        assert reassembly.held_bytes <= limit
        assert total <= MAX_FRAGMENTS or not reassembly.is_wanted(fragment)


def fragment_sequences():
    yield bytes([1, 2, 10, 2, 2, 10])
    yield bytes([2, 3, 10, 1, 3, 10, 1, 3, 20, 3, 3, 1])
    yield bytes([1, 2, 10, 3, 4, 9, 1, 4, 9, 2, 4, 9, 4, 4, 9])
    yield bytes(part for n in range(1, 65) for part in (n, 64, 255))


# --- the endpoint -------------------------------------------------------------------------------


class Busy:
    """A pair that is used for many inputs: strangers must leave no trace on what is established."""

    def __init__(self):
        # The SPIs of the seeds, but other keys: of these messages, too, only strangers are the senders.
        self.pair = Pair(both={"ike": "aes256gcm16-prfsha384-ecp256", "esp": "aes256gcm16-x25519"})
        self.pair.establish()
        self.pair.tap.is_strict = False
        self.known = {host.name: (host.ike_sa.ike_sa_id, host.child_sa) for host in self.pair.hosts}
        self.left = 200

    @classmethod
    @cache
    def current(cls):
        return cls()


def run_stranger(data):
    """One datagram without any key, from the peer's address or a new one, to either side."""
    busy = Busy.current()
    if busy.left == 0:
        Busy.current.cache_clear()
        busy = Busy.current()
    busy.left -= 1
    pair = busy.pair
    host = pair.hosts[data[0] & 1 if data else 0]
    path = Path(host.address, 500, (BOB if host is pair.alice else ALICE), 500)
    if data and data[0] & 2:
        path = Path(host.address, 4500, BOB + 1 + data[0], 1024 + data[0])
    before = len(pair.sent(host))

    host.receive(data[1:], path)

    answers = pair.sent(host)[before:]
    assert len(answers) <= 1
    assert all(len(answer.data) <= len(data) + 512 for answer in answers)
    assert busy.known[host.name] == (host.ike_sa.ike_sa_id, host.child_sa)
    assert set(host.sad.sas) == {sa.sa_id for sa in (host.child_sa.inbound, host.child_sa.outbound)}


def stranger_seeds():
    for datagram in captured():
        yield b"\x00" + datagram
        yield b"\x03" + datagram


MAX_MESSAGES = 4
RESPONSE, FRAGMENTED, ODD_EXCHANGE = 0x01, 0x40, 0x80
AUTHENTIC = [start for start in STARTS if start != "connecting"]
EXCHANGES = (ExchangeType.CREATE_CHILD_SA, ExchangeType.INFORMATIONAL, ExchangeType.IKE_AUTH)


class Hostile:
    """A peer of `host` that has the keys, and sends what it is expected to send only as far as headers go."""

    def __init__(self, pair, host):
        self.pair, self.host = pair, host
        arrived = [pair.tap.open(e.packet.data).message.header for e in pair.log if is_arrival(e, host)]
        self.next_request = (
            max((header.message_id for header in arrived if header.is_request), default=-1) + 1
        )
        self.answered = {header.message_id for header in arrived if header.is_response}

    def send(self, flags, first_payload, octets):
        """Send one message; what the flags say is in `run_peer`."""
        header = self._header(flags)
        if header.is_response:
            self.answered.add(header.message_id)
        keys = self.pair.tap.keys(header.spi_i, header.spi_r)
        before = len(self.pair.sent(self.host))
        for number, part in enumerate(parts := self._parts(flags, octets), start=1):
            total = len(parts) + (flags >> 5 & 1)  # one may never come
            fragment = (number, total) if flags & FRAGMENTED else None
            first = first_payload if number == 1 else 0
            self.host.receive(keys.seal_octets(header, first, part, fragment))
        self.pair.settle()
        answers = [parse_header(packet.data) for packet in self.pair.sent(self.host)[before:]]
        if any(answer.is_response and answer.message_id == header.message_id for answer in answers):
            self.next_request += header.is_request

    def _parts(self, flags, octets):
        if not flags & FRAGMENTED:
            return [octets]
        size = len(octets) // (2 + (flags >> 4 & 1)) + 1
        return [octets[at : at + size] for at in range(0, max(len(octets), 1), size)]

    def _header(self, flags):
        """Return the header of what the host waits for: the answer to its open request, or a request."""
        sa = self.pair.alice.ike_sas[0]
        sent = [parse_header(packet.data) for packet in self.pair.sent(self.host)]
        waiting = [h for h in sent if h.is_request and h.message_id not in self.answered]
        is_response = bool(waiting and flags & RESPONSE)
        exchange = choice(flags >> 1 & 3, EXCHANGES)
        if is_response and not flags & ODD_EXCHANGE:
            exchange = waiting[0].exchange_type
        elif sa.state == "authenticating" and not flags & ODD_EXCHANGE:
            exchange = ExchangeType.IKE_AUTH
        role = HeaderFlag.INITIATOR if self.host is self.pair.bob else HeaderFlag(0)
        return IkeHeader(
            spi_i=sa.spi_i,
            spi_r=sa.spi_r,
            exchange_type=exchange,
            flags=int(role | (HeaderFlag.RESPONSE if is_response else 0)),
            message_id=waiting[0].message_id if is_response else self.next_request,
        )


def run_peer(data):
    """Authentic messages whose insides are whatever the input says, in every state of an IKE SA.

    ```
     input:  start | side | { flags | size, 2 bytes | first payload | octets } ...
     flags:  odd exchange | fragmented | a fragment missing | three not two | 0 | exchange, 2 bits | response
    ```
    """
    if len(data) >= 6:
        send_all(data, STARTS[choice(data[0], AUTHENTIC)]())


def send_all(data, pair):
    """Play the peer of one side of `pair`, and check what is left of it; return that side."""
    host = pair.hosts[data[1] & 1]
    pair.tap.is_strict = False
    if not pair.alice.ike_sas:
        return host
    sent_before = len(pair.sent(host))
    peer = Hostile(pair, host)
    messages = 0
    at = 2
    while at + 4 <= len(data) and messages < MAX_MESSAGES and pair.alice.ike_sas:
        size = int.from_bytes(data[at + 1 : at + 3])
        inside = data[at + 3 : at + 3 + size]
        if inside:
            peer.send(data[at], inside[0], inside[1:])
            messages += 1
        at += 3 + size

    assert len(pair.sent(host)) - sent_before <= MAX_ANSWERS * max(messages, 1)
    pair.run_for(120.0)
    wanted = {sa_id for sa in host.child_sas for sa_id in (sa.inbound.sa_id, sa.outbound.sa_id)}
    assert set(host.sad.sas) == wanted
    assert len(host.ike_sas) <= 2 + messages
    assert len(host.child_sas) <= 3 + messages
    assert all(sa.state in {"established", "rekeying"} for sa in host.ike_sas)
    return host


def peer_seeds():
    for number, opened in enumerate(recorded()):
        if not opened.is_protected:
            continue
        header = opened.message.header
        exchange = EXCHANGES.index(header.exchange_type) if header.exchange_type in EXCHANGES else 0
        inside = bytes([first_type(opened.payloads)]) + encode_payloads(opened.payloads)
        flags = int(header.is_response) | exchange << 1
        message = bytes([flags]) + len(inside).to_bytes(2) + inside
        for side in (0, 1):
            start = (number + side) % len(AUTHENTIC)
            yield bytes([start, side]) + message
            yield bytes([start, side]) + message + message
            yield bytes([start, side]) + bytes([flags | FRAGMENTED]) + message[1:]


# --- the endpoint under a peer that signs -------------------------------------------------------

WAYS = (Fragmentation.NO, Fragmentation.YES)


@cache
def authority():
    return signer("CA", 1)


def signer(name, number, issuer=None):
    """Return a certificate that is the same at every run, as is what it signs."""
    key = ed25519.Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)
    names = () if issuer is None else (f"{name}.example",)
    return issue(name, issuer, key=key, serial=number, names=names)


def signing(number):
    """Return a pair that has exchanged IKE_SA_INIT and will sign: chains, or raw public keys."""
    alice, bob = (signer(name, at, authority()) for name, at in (("alice", 2), ("bob", 3)))
    if number & 2:
        auths = {"alice": with_keys(alice.public), "bob": with_keys(bob.public)}
        believed = auths
    else:
        auths = {"alice": with_certificate((alice, authority())), "bob": with_certificate((bob, authority()))}
        believed = dict.fromkeys(auths, trusting(authority()))
    pair = Pair(
        alice={"local_auth": auths["alice"], "remote_auth": believed["bob"]},
        bob={"local_auth": auths["bob"], "remote_auth": believed["alice"]},
        both={"ike_options": {"fragmentation": choice(number, WAYS), "fragment_packet_bytes": 4000}},
    )
    pair.alice.hold(alice.private)
    pair.bob.hold(bob.private, crls=[read_crl(crl(authority(), signer("mallory", 4, authority())))])
    return pair


def waiting_for_signatures(number):
    """Return such a pair; Alice's IKE_AUTH request was lost."""
    pair = signing(number)
    pair.link.fate = lambda packet: (0.0,) if packet.number < 2 else ()
    pair.alice.initiate()
    pair.settle()
    return pair


@cache
def signatures(number):
    """Return the genuine IKE_AUTH messages of Alice and Bob."""
    pair = signing(number)
    pair.alice.initiate()
    pair.settle()
    return [m for m in pair.messages() if m.message.header.exchange_type == ExchangeType.IKE_AUTH]


def run_signer(data):
    """The same peer, where AUTH is a signature: nobody is believed without the genuine one.

    The first byte of the input chooses between chains and raw public keys, with fragments or without.
    """
    if len(data) < 6:
        return
    host = send_all(data, waiting_for_signatures(data[0]))
    genuine = [find_payload(m.payloads, AuthPayload).data for m in signatures(data[0])]
    assert not host.events(IkeSaEstablished) or any(auth in data for auth in genuine)


def signer_seeds():
    for number in range(4):
        for opened in signatures(number):
            header = opened.message.header
            inside = bytes([first_type(opened.payloads)]) + encode_payloads(opened.payloads)
            flags = int(header.is_response) | EXCHANGES.index(header.exchange_type) << 1
            message = len(inside).to_bytes(2) + inside
            side = int(header.is_request)  # Bob takes requests.
            yield bytes([number, side, flags]) + message
            yield bytes([number, side, flags | FRAGMENTED]) + message


IKE_TARGETS = (
    Target("ike_message", captured, run_message),
    Target("ike_payloads", chains, run_payloads),
    Target("ike_notify", lambda: [bytes([n]) + bytes(range(8)) for n in range(7)], run_notify, 64),
    Target("ike_reassembly", fragment_sequences, run_reassembly, 600),
    Target("endpoint_stranger", stranger_seeds, run_stranger),
    Target("endpoint_peer", peer_seeds, run_peer, 2000),
    Target("endpoint_signer", signer_seeds, run_signer),
)
