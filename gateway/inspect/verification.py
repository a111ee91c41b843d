"""Verifying what two peers derived: SKEYSEED, SK_*, AUTH and KEYMAT of the exchanges of a capture.

Everything is computed from what was on the wire and as few secrets as there can be: g^ir of each key
exchange, and the key of AUTH where that is a shared one. The results are compared with what the peers logged,
with key tables where there are some, and with AUTH on the wire; and the keys go to the inspectors, so that
what they open is proof too.
"""

import re
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from gateway.ike.crypto.certificate import CertificateProblem, read_certificate
from gateway.ike.crypto.keymat import (
    ChildKeys,
    IkeKeys,
    derive_child_keymat,
    derive_rekeyed_skeyseed,
    derive_skeyseed,
    expand_skeyseed,
)
from gateway.ike.crypto.prf import prf_function
from gateway.ike.crypto.suite import IkeSuite
from gateway.ike.errors import IkeError, PeerError
from gateway.ike.v2.authentication import (
    AuthenticationInput,
    compute_psk_auth,
    signed_octets,
    verify_signature_auth,
)
from gateway.ike.wire.header import ExchangeType, IkeHeader
from gateway.ike.wire.notify import NotifyType
from gateway.ike.wire.payloads import (
    AuthenticationMethod,
    AuthPayload,
    CertificateEncoding,
    CertPayload,
    IdiPayload,
    IdrPayload,
    KePayload,
    NoncePayload,
    Payload,
    SaPayload,
    all_payloads,
    find_notify,
    find_payload,
)
from gateway.ike.wire.sa_payload import WireProposal
from gateway.inspect.describe import enum_name
from gateway.inspect.keys import AddressPattern, EspKey, IkeKey, KeyTables
from gateway.inspect.ledger import Checked, Ledger, Logged
from gateway.inspect.opening import CannotOpen, build_agreed_opener
from gateway.inspect.secrets import CHILD_VALUES, SKEYSEED, SecretLog
from gateway.ipsec.algorithms import Encr, Integ
from gateway.ipsec.authentication import PublicKey, SignatureScheme
from gateway.ipsec.errors import VocabularyError
from gateway.ipsec.proposal import Proposal, ProtocolId
from gateway.ipsec.secret import Secret

_K = TypeVar("_K")
_V = TypeVar("_V")

MAX_IKE_SAS: Final = 1024
"""IKE SAs, and first requests, that are remembered; the oldest is forgotten first."""
MAX_REQUESTS: Final = 64
"""Requests of one IKE SA whose responses are awaited."""
NO_PPK: Final = "PPK is not supported yet (RFC 8784)"
NO_INTAUTH: Final = "AUTH after IKE_INTERMEDIATE is not supported yet (RFC 9242)"
NO_EXCHANGE: Final = "the secrets hold no key exchange with these nonces"


@dataclass(slots=True, kw_only=True)
class _Side:
    """What one side said of itself in IKE_AUTH."""

    message: bytes
    """Its message of IKE_SA_INIT."""
    peer_nonce: bytes
    id_body: bytes | None = None
    certificates: list[bytes] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class _IkeSa:
    """One IKE SA of the capture."""

    spi_i: bytes
    spi_r: bytes
    nonce_i: bytes
    nonce_r: bytes
    suite: IkeSuite
    keys: IkeKeys | None
    """None: they cannot be derived."""
    initiator: _Side | None = None
    """None after a rekey: nobody authenticates again."""
    responder: _Side | None = None
    uses_ppk: bool = False
    has_intermediate: bool = False
    child_request: SaPayload | None = None
    """SAi2."""
    requests: dict[tuple[int, bool], tuple[Payload, ...]] = field(default_factory=dict)
    """By Message ID, and whether the original initiator asked."""

    @property
    def name(self) -> str:
        return f"IKE SA {self.spi_i.hex()}_{self.spi_r.hex()}"


@dataclass(frozen=True, slots=True)
class _FirstMessage:
    datagram: bytes
    payloads: tuple[Payload, ...]


class Verifier:
    """Follows the exchanges of one capture, in its order.

    Args:
        logs: What is known of them.
        tables: Key tables to compare with; the keys of Child SAs are added, for the ESP that follows.
    """

    def __init__(self, logs: Sequence[SecretLog], tables: KeyTables) -> None:
        self._ledger = Ledger(logs)
        self._tables = tables
        self._given = KeyTables(list(tables.ike), list(tables.esp))
        self._first_requests: OrderedDict[bytes, _FirstMessage] = OrderedDict()
        self._sas: OrderedDict[tuple[bytes, bytes], _IkeSa] = OrderedDict()
        self._new_keys: list[IkeKey] = []

    def finish(self, *, is_cut: bool) -> list[Checked]:
        """Return what became of every value, once the capture was read; see `Ledger.close`."""
        return self._ledger.close(is_cut=is_cut)

    def drain_ike_keys(self) -> list[IkeKey]:
        """Return the keys of IKE SAs derived since the last call."""
        keys, self._new_keys = self._new_keys, []
        return keys

    def take(self, header: IkeHeader, payloads: tuple[Payload, ...], datagram: bytes) -> None:
        """Take one message, in the open: of IKE_SA_INIT as it is, of others what is inside SK."""
        try:
            if header.exchange_type == ExchangeType.IKE_SA_INIT:
                self._take_init(header, _FirstMessage(datagram, payloads))
                return
            ike_sa = self._sas.get((header.spi_i, header.spi_r))
            if ike_sa is None or not payloads:
                return
            if header.is_request:
                if len(ike_sa.requests) < MAX_REQUESTS:
                    ike_sa.requests.setdefault((header.message_id, header.from_initiator), payloads)
                return
            request = ike_sa.requests.pop((header.message_id, not header.from_initiator), None)
            if request is not None:
                self._take_exchange(ike_sa, header, request, payloads)
        except (IkeError, VocabularyError, CannotOpen) as error:
            subject = f"IKE SA {header.spi_i.hex()}_{header.spi_r.hex()}"
            self._ledger.not_verified(subject, enum_name(ExchangeType, header.exchange_type), str(error))

    # --- IKE_SA_INIT (RFC 7296 §2.14) -------------------------------------------------------------

    def _take_init(self, header: IkeHeader, message: _FirstMessage) -> None:
        if header.is_request:
            # The last one counts: with its cookie, and of the key exchange method that was agreed on.
            _put(self._first_requests, header.spi_i, message)
            return
        request = self._first_requests.get(header.spi_i)
        chosen = _chosen(message.payloads)
        if request is None or chosen is None or (header.spi_i, header.spi_r) in self._sas:
            return
        nonce_i, nonce_r = _nonce(request.payloads), _nonce(message.payloads)
        if chosen.proposal is None:
            raise PeerError("the proposal has algorithms that we do not know")
        ike_sa = _IkeSa(
            spi_i=header.spi_i,
            spi_r=header.spi_r,
            nonce_i=nonce_i,
            nonce_r=nonce_r,
            suite=IkeSuite.of(chosen.proposal),
            keys=None,
            initiator=_Side(message=request.datagram, peer_nonce=nonce_r),
            responder=_Side(message=message.datagram, peer_nonce=nonce_i),
        )
        _put(self._sas, (header.spi_i, header.spi_r), ike_sa)
        logged = self._ledger.take_ike(nonce_i + nonce_r)
        shared_secret = logged.shared_secret
        if shared_secret is None:
            self._not_derived(ike_sa, NO_EXCHANGE)
            return
        self._derived(ike_sa, derive_skeyseed(ike_sa.suite.prf, shared_secret, nonce_i, nonce_r), logged)

    def _derived(self, ike_sa: _IkeSa, skeyseed: Secret, logged: Logged) -> None:
        """Take SKEYSEED: expand it, compare everything, and let messages be opened with it."""
        seed = ike_sa.nonce_i + ike_sa.nonce_r + ike_sa.spi_i + ike_sa.spi_r
        keys = expand_skeyseed(ike_sa.suite, skeyseed, seed)
        ike_sa.keys = keys
        computed = {SKEYSEED: skeyseed, **_named(keys)}
        for value, secret in computed.items():
            if len(secret):
                self._ledger.compare(ike_sa.name, value, secret, logged)
        row = IkeKey(
            ike_sa.spi_i,
            ike_sa.spi_r,
            build_agreed_opener(ike_sa.suite.encr, keys.sk_ei, ike_sa.suite.integ, keys.sk_ai),
            build_agreed_opener(ike_sa.suite.encr, keys.sk_er, ike_sa.suite.integ, keys.sk_ar),
        )
        self._new_keys.append(row)
        self._compare_table(ike_sa, row)

    def _compare_table(self, ike_sa: _IkeSa, row: IkeKey) -> None:
        """Compare with the rows of an ikev2_decryption_table; one of several for these SPIs has to fit."""
        given = [key for key in self._given.ike if (key.spi_i, key.spi_r) == (ike_sa.spi_i, ike_sa.spi_r)]
        if not given:
            return
        fits = any(
            key.from_initiator.encryption_key == row.from_initiator.encryption_key
            and key.from_responder.encryption_key == row.from_responder.encryption_key
            for key in given
        )
        self._ledger.note(ike_sa.name, "SK_ei, SK_er in the key table", is_right=fits)

    def _not_derived(self, ike_sa: _IkeSa, why: str) -> None:
        self._ledger.is_incomplete = self._ledger.is_incomplete or why != NO_EXCHANGE
        self._ledger.not_verified(ike_sa.name, "SKEYSEED, SK_*", why)

    # --- exchanges in an IKE SA -------------------------------------------------------------------

    def _take_exchange(
        self, ike_sa: _IkeSa, header: IkeHeader, request: tuple[Payload, ...], response: tuple[Payload, ...]
    ) -> None:
        match header.exchange_type:
            case ExchangeType.IKE_AUTH:
                self._take_auth(ike_sa, request, response)
            case ExchangeType.IKE_INTERMEDIATE:
                self._take_intermediate(ike_sa, response)
            case ExchangeType.CREATE_CHILD_SA:
                self._take_create_child(ike_sa, request, response)

    def _take_intermediate(self, ike_sa: _IkeSa, response: tuple[Payload, ...]) -> None:
        """One more key exchange makes all keys anew (RFC 9370 §2.2.2)."""
        ike_sa.has_intermediate = True
        if find_payload(response, KePayload) is None or ike_sa.keys is None:
            return
        logged = self._ledger.take_ike(ike_sa.nonce_i + ike_sa.nonce_r)
        shared_secret = logged.shared_secret
        if shared_secret is None:
            self._not_derived(ike_sa, NO_EXCHANGE)
            ike_sa.keys = None
            return
        skeyseed = derive_rekeyed_skeyseed(
            ike_sa.suite.prf,
            ike_sa.keys.sk_d,
            shared_secret=shared_secret,
            nonce_i=ike_sa.nonce_i,
            nonce_r=ike_sa.nonce_r,
        )
        self._derived(ike_sa, skeyseed, logged)

    # --- IKE_AUTH (RFC 7296 §2.15) ----------------------------------------------------------------

    def _take_auth(self, ike_sa: _IkeSa, request: tuple[Payload, ...], response: tuple[Payload, ...]) -> None:
        if any(find_notify(payloads, NotifyType.PPK_IDENTITY) for payloads in (request, response)):
            ike_sa.uses_ppk = True
        for role, side, payloads, identity in (
            ("initiator", ike_sa.initiator, request, find_payload(request, IdiPayload)),
            ("responder", ike_sa.responder, response, find_payload(response, IdrPayload)),
        ):
            if side is None:
                continue
            if identity is not None:
                side.id_body = identity.body
            side.certificates += [
                cert.data
                for cert in all_payloads(payloads, CertPayload)
                if cert.encoding == CertificateEncoding.X509_SIGNATURE
            ]
            auth = find_payload(payloads, AuthPayload)
            if auth is not None:
                self._check_auth(ike_sa, role, side, auth)
        sa_i = find_payload(request, SaPayload)
        ike_sa.child_request = sa_i or ike_sa.child_request
        if ike_sa.child_request is not None and _chosen(response) is not None:
            self._check_child(ike_sa, ike_sa.child_request, response, ike_sa.nonce_i, ike_sa.nonce_r)

    def _check_auth(self, ike_sa: _IkeSa, role: str, side: _Side, auth: AuthPayload) -> None:
        method = enum_name(AuthenticationMethod, auth.method)
        value = f"AUTH of the {role} ({method})"
        if ike_sa.uses_ppk or ike_sa.has_intermediate:
            self._ledger.not_verified(ike_sa.name, value, NO_PPK if ike_sa.uses_ppk else NO_INTAUTH)
            return
        if ike_sa.keys is None or side.id_body is None:
            self._ledger.not_verified(ike_sa.name, value, "its keys or identity are not known")
            return
        prf = prf_function(ike_sa.suite.prf)
        given = AuthenticationInput(
            message=side.message,
            peer_nonce=side.peer_nonce,
            id_body=side.id_body,
            sk_p=ike_sa.keys.sk_pi if role == "initiator" else ike_sa.keys.sk_pr,
        )
        octets = signed_octets(prf, given)
        self._ledger.compare_octets(ike_sa.name, f"signed octets of the {role}", Secret(octets))
        if auth.method == AuthenticationMethod.SHARED_KEY_MIC:
            given_by = [Secret(compute_psk_auth(prf, key, given)) for key in self._ledger.shared_keys]
            self._check_mac(ike_sa, value, Secret(auth.data), given_by)
        else:
            self._check_signature(ike_sa, value, side, auth, octets)

    def _check_mac(self, ike_sa: _IkeSa, value: str, auth: Secret, given_by: Sequence[Secret]) -> None:
        if not given_by:
            self._ledger.not_verified(ike_sa.name, value, "the secrets hold no shared key")
        elif any(auth == computed for computed in given_by):
            self._ledger.compare_auth(ike_sa.name, value, auth)
        else:
            detail = "no shared key of the secrets gives it"
            self._ledger.note(ike_sa.name, value, is_right=False, detail=detail)

    def _check_signature(
        self, ike_sa: _IkeSa, value: str, side: _Side, auth: AuthPayload, octets: bytes
    ) -> None:
        key = _public_key(side.certificates)
        if key is None:
            self._ledger.not_verified(ike_sa.name, value, "no certificate that can be read is in the capture")
            return
        try:
            verify_signature_auth((key,), tuple(SignatureScheme), auth, octets)
        except PeerError as error:
            self._ledger.note(ike_sa.name, value, is_right=False, detail=str(error))
        else:
            self._ledger.note(ike_sa.name, value, is_right=True)

    # --- CREATE_CHILD_SA (RFC 7296 §2.17, §2.18) --------------------------------------------------

    def _take_create_child(
        self, ike_sa: _IkeSa, request: tuple[Payload, ...], response: tuple[Payload, ...]
    ) -> None:
        sa_i, chosen = find_payload(request, SaPayload), _chosen(response)
        if sa_i is None or chosen is None:
            return
        nonce_i, nonce_r = _nonce(request), _nonce(response)
        if chosen.protocol == ProtocolId.IKE:
            self._take_ike_rekey(ike_sa, sa_i, chosen, nonce_i, nonce_r)
        else:
            self._check_child(ike_sa, sa_i, response, nonce_i, nonce_r)

    def _take_ike_rekey(
        self, old: _IkeSa, sa_i: SaPayload, chosen: WireProposal, nonce_i: bytes, nonce_r: bytes
    ) -> None:
        if chosen.proposal is None:
            raise PeerError("the proposal has algorithms that we do not know")
        made = _IkeSa(
            spi_i=_offered_spi(sa_i, chosen),
            spi_r=chosen.spi,
            nonce_i=nonce_i,
            nonce_r=nonce_r,
            suite=IkeSuite.of(chosen.proposal),
            keys=None,
        )
        _put(self._sas, (made.spi_i, made.spi_r), made)
        logged = self._ledger.take_ike(nonce_i + nonce_r)
        shared_secret = logged.shared_secret
        if old.uses_ppk or old.keys is None:
            self._not_derived(made, NO_PPK if old.uses_ppk else "there are no keys of the IKE SA before")
        elif shared_secret is None:
            self._not_derived(made, NO_EXCHANGE)
        else:
            skeyseed = derive_rekeyed_skeyseed(
                old.suite.prf,
                old.keys.sk_d,
                shared_secret=shared_secret,
                additional=logged.additional,
                nonce_i=nonce_i,
                nonce_r=nonce_r,
            )
            self._derived(made, skeyseed, logged)

    def _check_child(
        self,
        ike_sa: _IkeSa,
        sa_i: SaPayload,
        response: tuple[Payload, ...],
        nonce_i: bytes,
        nonce_r: bytes,
    ) -> None:
        """Compare KEYMAT, and let ESP be opened with it. The nonces are those of its exchange (§2.17)."""
        chosen = _chosen(response)
        assert chosen is not None
        spi_i, spi_r = _offered_spi(sa_i, chosen), chosen.spi
        subject = f"Child SA {spi_i.hex()}_{spi_r.hex()}"
        # The nonces of the first Child SA are those of IKE_SA_INIT, and its KE payloads made SKEYSEED.
        has_ke = nonce_i != ike_sa.nonce_i and find_payload(response, KePayload) is not None
        logged = self._ledger.take_child(nonce_i + nonce_r, has_ke=has_ke)
        if ike_sa.keys is None or ike_sa.uses_ppk:
            self._ledger.not_verified(
                subject, "KEYMAT", NO_PPK if ike_sa.uses_ppk else "there are no keys of the IKE SA"
            )
            return
        if chosen.proposal is None:
            self._ledger.not_verified(subject, "KEYMAT", "the proposal has algorithms that we do not know")
            return
        shared_secret = logged.shared_secret
        if has_ke and shared_secret is None:
            self._ledger.not_verified(subject, "KEYMAT", NO_EXCHANGE)
            return
        encr, integ, key_bits = _child_algorithms(chosen.proposal)
        keys = derive_child_keymat(
            ike_sa.suite.prf,
            ike_sa.keys.sk_d,
            encr=encr,
            key_bits=key_bits,
            integ=integ,
            nonce_i=nonce_i,
            nonce_r=nonce_r,
            shared_secret=shared_secret if has_ke else None,
            additional=logged.additional,
        )
        for value, secret in zip(CHILD_VALUES.values(), _parts(keys), strict=True):
            if len(secret):
                self._ledger.compare(subject, f"KEYMAT {value}", secret, logged, key=value)
        self._use_child(subject, chosen, keys, spi_i, spi_r)

    def _use_child(
        self, subject: str, chosen: WireProposal, keys: ChildKeys, spi_i: bytes, spi_r: bytes
    ) -> None:
        """Compare with the rows of an esp_sa table, and let ESP be opened."""
        assert chosen.proposal is not None
        if chosen.protocol != ProtocolId.ESP:
            return
        proposal = chosen.proposal
        # Each side receives with the SPI that it chose.
        for way, spi, encryption, integrity in (
            ("initiator to responder", spi_r, keys.encryption_i, keys.integrity_i),
            ("responder to initiator", spi_i, keys.encryption_r, keys.integrity_r),
        ):
            number = int.from_bytes(spi, "big")
            given = [key for key in self._given.esp if key.is_exact_spi and key.matches_spi(number)]
            if given:
                fits = any(
                    row.opener.encryption_key == encryption and row.opener.integrity_key == integrity
                    for row in given
                )
                value = f"KEYMAT {way} in the key table"
                self._ledger.note(subject, value, is_right=fits)
                continue
            opener = build_agreed_opener(proposal.encr, encryption, proposal.integ, integrity)
            self._tables.esp.append(
                EspKey(
                    version=0,
                    source=AddressPattern(),
                    destination=AddressPattern(),
                    spi=re.compile(f"{number:08x}"),
                    is_exact_spi=True,
                    esn=proposal.esn,
                    opener=opener,
                )
            )


# --- payloads -----------------------------------------------------------------------------------


def _chosen(payloads: tuple[Payload, ...]) -> WireProposal | None:
    """Return the proposal that a responder chose; None if it refused."""
    sa = find_payload(payloads, SaPayload)
    return sa.proposals[0] if sa is not None and len(sa.proposals) == 1 else None


def _offered_spi(sa_i: SaPayload, chosen: WireProposal) -> bytes:
    """Return the SPI that the exchange's initiator chose, in the proposal that was taken."""
    offered = [p for p in sa_i.proposals if (p.number, p.protocol) == (chosen.number, chosen.protocol)]
    if not offered:
        raise PeerError("the responder chose a proposal that was not offered")
    return offered[0].spi


def _child_algorithms(proposal: Proposal) -> tuple[Encr, Integ, int]:
    """Return what a Child SA agreed on: both algorithms, and the key length of the first in bits.

    Raises:
        PeerError: It is something that we do not know.
    """
    try:
        return proposal.encr, proposal.integ, proposal.key_bits
    except ValueError:
        raise PeerError(f"{proposal} has algorithms that we do not know") from None


def _nonce(payloads: tuple[Payload, ...]) -> bytes:
    nonce = find_payload(payloads, NoncePayload)
    if nonce is None:
        raise PeerError("there is no nonce")
    return nonce.data


def _public_key(certificates: Sequence[bytes]) -> PublicKey | None:
    """Return the key of the end entity's certificate, which is the first (RFC 7296 §3.6)."""
    if not certificates:
        return None
    try:
        return read_certificate(certificates[0]).public_key
    except CertificateProblem:
        return None


# --- keys ----------------------------------------------------------------------------------------


def _named(keys: IkeKeys) -> dict[str, Secret]:
    return {
        "SK_d": keys.sk_d,
        "SK_ai": keys.sk_ai,
        "SK_ar": keys.sk_ar,
        "SK_ei": keys.sk_ei,
        "SK_er": keys.sk_er,
        "SK_pi": keys.sk_pi,
        "SK_pr": keys.sk_pr,
    }


def _parts(keys: ChildKeys) -> Iterator[Secret]:
    """Yield the parts of KEYMAT in the order of `CHILD_VALUES`."""
    yield from (keys.encryption_i, keys.integrity_i, keys.encryption_r, keys.integrity_r)


def _put(table: OrderedDict[_K, _V], key: _K, value: _V) -> None:
    """Remember something, and forget the oldest where that is too much."""
    table[key] = value
    while len(table) > MAX_IKE_SAS:
        table.popitem(last=False)
