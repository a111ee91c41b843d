"""The small records: lifetimes, secrets, SAs."""

import copy
import pickle
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.ipsec.algorithms import Encr
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.errors import VocabularyError
from gateway.ipsec.lifetime import Lifetime, Limit, jittered
from gateway.ipsec.sa import Direction, SecurityAssociation, Spi, UdpEncapsulation
from gateway.ipsec.secret import Secret


def test_jitter_shortens_the_soft_limit_and_over_lengthens_the_hard_one():
    limit = Limit(seconds=1000.0, bytes=10_000, packets=100)

    assert jittered(limit, 0.1, 0.2, 0.5) == Lifetime(
        soft=Limit(seconds=900.0, bytes=9000, packets=90),
        hard=Limit(seconds=1100.0, bytes=11_000, packets=110),
    )


def test_no_limit_stays_no_limit():
    assert jittered(Limit(), 0.1, 0.1, 0.5) == Lifetime()
    assert jittered(Limit(seconds=0.0, bytes=0, packets=0), 0.1, 0.1, 0.5) == Lifetime()


@given(
    st.floats(1, 1e6),
    st.integers(1, 2**63),
    st.floats(0, 1),
    st.floats(0, 0.99),
    st.floats(0, 1, exclude_max=True),
)
def test_soft_is_never_after_the_limit_nor_the_limit_after_hard(seconds, count, over, jitter, fraction):
    result = jittered(Limit(seconds=seconds, packets=count), over, jitter, fraction)

    assert 0 < result.soft.seconds <= seconds <= result.hard.seconds
    assert 1 <= result.soft.packets <= result.hard.packets


@pytest.mark.parametrize(
    "arguments", [(-0.1, 0.1, 0.5), (0.1, 1.0, 0.5), (0.1, -0.1, 0.5), (0.1, 0.1, 1.0), (0.1, 0.1, -0.1)]
)
def test_fractions_out_of_range_are_refused(arguments):
    with pytest.raises(VocabularyError):
        jittered(Limit(seconds=10), *arguments)


SA = SecurityAssociation(
    spi=Spi(0x1234),
    direction=Direction.INBOUND,
    source=IPv4Address("192.0.2.2"),
    destination=IPv4Address("192.0.2.1"),
    encryption=Encr.AES_GCM_16,
    encryption_key=Secret(bytes(20)),
    key_bits=128,
    local_ts=(),
    remote_ts=(),
)


def test_sa_has_a_name_of_direction_protocol_destination_and_spi():
    assert SA.sa_id == "in:esp:192.0.2.1:00001234"


@pytest.mark.parametrize(
    "change",
    [
        {"spi": 0},
        {"spi": 255},
        {"spi": 2**32},
        {"replay_window_packets": 32},
        {"replay_window_packets": 4097},
        {"replay_window_packets": -1},
        {"source": IPv6Address("::1")},
    ],
    ids=str,
)
def test_impossible_sa_is_refused(change):
    with pytest.raises(VocabularyError):
        replace(SA, **change)


@pytest.mark.parametrize("change", [{"spi": 256}, {"spi": 2**32 - 1}, {"replay_window_packets": 0}], ids=str)
def test_edges_are_allowed(change):
    assert replace(SA, **change) != SA


def test_encapsulation_ports_are_ports():
    with pytest.raises(VocabularyError):
        UdpEncapsulation(source_port=0, destination_port=4500)


def test_sas_with_other_keys_differ_and_neither_prints_its_key():
    other = replace(SA, encryption_key=Secret(b"k" * 20))

    assert other != SA
    assert replace(SA, encryption_key=Secret(bytes(20))) == SA
    assert "kkk" not in repr(other)
    assert "Secret(20 bytes)" in repr(other)


def test_secret_never_prints_and_is_not_copied():
    secret = Secret(b"hunter2")

    assert "hunter2" not in f"{secret} {secret!r} {secret!s} {secret:>20}"
    for copier in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="not pickled or copied"):
            copier(secret)
    with pytest.raises(TypeError, match="unhashable"):
        hash(secret)


def test_secret_compares_with_secrets_only():
    assert Secret(b"a") == Secret(b"a")
    assert Secret(b"a") != Secret(b"b")
    assert (Secret(b"a") == b"a") is False


def test_wiped_secret_is_empty():
    secret = Secret(b"hunter2")

    secret.wipe()

    assert len(secret) == 0
    assert secret.reveal() == b""


def test_drop_reasons_are_named_as_they_are_spelled():
    assert all(reason.value == reason.name.lower() for reason in DropReason)
