"""Suites that a peer has in common with us, on the null kernel: both ends install the same keys."""

from typing import Any

import pytest

from tests.interop.conftest import StartPair
from tests.interop.libreswan import Pluto
from tests.interop.null_strongswan import NullCharon
from tests.interop.openiked import Iked
from tests.interop.our_gateway import failure_of
from tests.interop.peer import Peer, Wanted

GOOD_IKE = "aes256gcm16-prfsha384-x25519"

IKE_SUITES: dict[type[Peer], tuple[str, ...]] = {
    Pluto: (
        "aes128-sha256-modp2048",
        "aes256-sha384-modp3072",
        "aes256-sha512-ecp521",
        "aes128-sha1-modp4096",
        "aes256ctr-sha256-ecp256",
        "aes128gcm8-prfsha256-ecp384",
        "aes256gcm12-prfsha512-x25519",
        "chacha20poly1305-prfsha256-x25519",
    ),
    Iked: (
        "aes128-sha256-modp2048",
        "aes256-sha384-modp3072",
        "aes256-sha512-ecp521",
        "aes128-sha1-modp4096",
        "aes128gcm12-prfsha256-ecp256",
        "aes256gcm16-prfsha512-ecp384",
    ),
}
ESP_SUITES: dict[type[Peer], tuple[str, ...]] = {
    Pluto: (
        "aes128-sha1",
        "aes256-sha256",
        "aes256-sha384",
        "aes256ctr-sha512",
        "aes128gcm8",
        "aes256gcm12",
        "null-sha256",
    ),
    Iked: ("aes128-sha1", "aes192-sha384", "aes256-sha512"),
    NullCharon: ("null-sha256",),
}
#: Wireshark's table, and so our key log, has no name for these: only the SPIs are compared.
ESP_SUITES_WITHOUT_KEYS: dict[type[Peer], tuple[str, ...]] = {
    Pluto: ("aes256ccm16", "chacha20poly1305", "aes256gmac", "aes128-aesxcbc", "aes128-aescmac"),
    NullCharon: ("aes256gmac",),
}


def each(suites: dict[type[Peer], tuple[str, ...]]) -> list[Any]:
    """Return every suite with its peer."""
    return [pytest.param(peer, suite, id=f"{peer.name}-{suite}") for peer in suites for suite in suites[peer]]


@pytest.mark.interop(feature="IKE `{suite}`", role="ours")
@pytest.mark.parametrize(("peer", "suite"), each(IKE_SUITES))
def test_an_ike_suite(start_pair: StartPair, peer: type[Peer], suite: str) -> None:
    """IKE_SA_INIT, IKE_AUTH, and a rekey of the IKE SA over it."""
    with start_pair(peer, Wanted(ike=(suite,))) as pair:
        pair.bring_up("ours")

        assert set(pair.ours.ike_sas()[0].proposal.split("-")) >= set(suite.split("-"))
        assert not failure_of(pair.ours.rekey("net"))
        pair.check_keys()


@pytest.mark.interop(feature="ESP `{suite}`", role="ours")
@pytest.mark.parametrize(("peer", "suite"), each(ESP_SUITES))
def test_an_esp_suite(start_pair: StartPair, peer: type[Peer], suite: str) -> None:
    weak = tuple({"null"} & set(suite.split("-")))
    with start_pair(peer, Wanted(esp=(suite,), allow_weak=weak)) as pair:
        pair.bring_up("ours")

        assert set(pair.ours.child_sas()[0].proposal.split("-")) == set(suite.split("-"))
        pair.check_keys()


@pytest.mark.interop(feature="ESP `{suite}`", role="ours")
@pytest.mark.parametrize(("peer", "suite"), each(ESP_SUITES_WITHOUT_KEYS))
def test_an_esp_suite_of_which_no_keys_are_told(start_pair: StartPair, peer: type[Peer], suite: str) -> None:
    weak = tuple({"aes256gmac"} & {suite})
    with start_pair(peer, Wanted(esp=(suite,), allow_weak=weak)) as pair:
        pair.bring_up("ours")

        assert set(pair.ours.child_sas()[0].proposal.split("-")) == set(suite.split("-"))
        assert pair.same_sas()
