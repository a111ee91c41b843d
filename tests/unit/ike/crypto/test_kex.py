"""Key exchange: lengths, refusals, leading zeros. Its vectors: `test_vectors`, `test_wycheproof`."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import derive_private_key

from gateway.ike.crypto import kex, modp
from gateway.ike.errors import InvalidSyntax, LocalError
from gateway.ike.wire.notify import NotifyType
from gateway.ipsec.algorithms import KE, Ke, ProtocolId, TransformType
from gateway.ipsec.implemented import IMPLEMENTED
from gateway.ipsec.secret import Secret

METHODS = [Ke(id_) for id_ in sorted(IMPLEMENTED[ProtocolId.IKE][TransformType.KE])]
MODP = [method for method in METHODS if method.name.startswith("MODP")]
SMALL_MODP = [method for method in MODP if KE[method].public_value_bytes <= 512]
"""Those in which Python draws a root in milliseconds; the bigger ones take up to a second."""
ECP = [method for method in METHODS if method.name.startswith(("ECP", "BRAINPOOL"))]


def entropy_of(seed):
    """Deterministic and different at each call."""
    state = [seed]

    def entropy(size):
        state[0] += 1
        return (state[0].to_bytes(4, "big") * (size // 4 + 1))[:size]

    return entropy


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_both_ends_agree_and_lengths_are_those_of_the_table(method):
    ours = kex.generate(method, entropy_of(0x11223344))
    theirs = kex.generate(method, entropy_of(0x55667788))

    secret = ours.compute(theirs.public)

    assert secret == theirs.compute(ours.public)
    assert len(secret) == KE[method].secret_bytes
    assert len(ours.public) == KE[method].public_value_bytes
    assert ours.public != theirs.public


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
@pytest.mark.parametrize("change", [b"", b"\x01"], ids=["short", "long"])
def test_public_value_of_wrong_length_is_refused_with_invalid_syntax(method, change):
    ours = kex.generate(method, entropy_of(1))
    theirs = kex.generate(method, entropy_of(2)).public

    with pytest.raises(InvalidSyntax, match="bytes") as caught:
        ours.compute(theirs + change if change else theirs[:-1])

    assert caught.value.notify == NotifyType.INVALID_SYNTAX


@pytest.mark.parametrize("method", MODP, ids=lambda m: m.name)
def test_modp_public_value_outside_2_to_p_minus_2_is_refused(method):
    ours = kex.generate(method, entropy_of(1))
    prime = modp.modulus(method)
    size = KE[method].public_value_bytes

    for value in (0, 1, prime - 1, prime, prime + 1):
        with pytest.raises(InvalidSyntax, match="between 1 and p-1"):
            ours.compute(value.to_bytes(size, "big"))
    for value in (2, prime - 2):
        assert len(ours.compute(value.to_bytes(size, "big"))) == size


def test_modp_primes_are_those_scapy_ships():
    from scapy.layers.tls.crypto import groups

    for bits in (1024, 1536, 2048, 3072, 4096, 6144, 8192):
        assert modp.modulus(Ke[f"MODP_{bits}"]) == getattr(groups, f"modp{bits}").m


@pytest.mark.parametrize(
    "method",
    [pytest.param(m, marks=() if m in SMALL_MODP else pytest.mark.slow, id=m.name) for m in MODP],
)
def test_modp_shared_secret_keeps_leading_zeros(method):
    """The peer sends the x-th root of 4, so that the secret is 4 and nearly all zeros (RFC 7296 §2.14)."""
    prime = modp.modulus(method)
    size = KE[method].public_value_bytes
    drawn = b"\xc3" * (modp.EXPONENT_BYTES[method] - 1) + b"\x01"
    ours = kex.generate(method, lambda size: drawn)
    root = pow(4, pow(int.from_bytes(drawn, "big"), -1, (prime - 1) // 2), prime)

    assert ours.compute(root.to_bytes(size, "big")) == Secret((4).to_bytes(size, "big"))


@pytest.mark.parametrize("method", MODP, ids=lambda m: m.name)
def test_modp_exponent_is_never_short(method):
    """Whatever the entropy source gives: the top bit is set."""
    size = modp.EXPONENT_BYTES[method]

    ours = kex.generate(method, lambda size: bytes(size))

    assert int.from_bytes(ours.public, "big") == pow(2, 1 << (8 * size - 1), modp.modulus(method))


@pytest.mark.parametrize("method", ECP, ids=lambda m: m.name)
def test_point_that_is_not_on_the_curve_is_refused(method):
    """RFC 6989 §2.3; each coordinate wrong by one bit, both zero, and beyond the field."""
    ours = kex.generate(method, entropy_of(1))
    point = kex.generate(method, entropy_of(2)).public
    half = len(point) // 2

    for wrong in (
        bytes([*point[: half - 1], point[half - 1] ^ 1, *point[half:]]),
        bytes([*point[:-1], point[-1] ^ 1]),
        bytes(len(point)),
        b"\xff" * len(point),
    ):
        with pytest.raises(InvalidSyntax, match="not a point of its curve"):
            ours.compute(wrong)


@pytest.mark.parametrize("method", [Ke.CURVE25519, Ke.CURVE448], ids=lambda m: m.name)
def test_point_of_small_order_is_refused(method):
    """RFC 8031 §5: the all-zero secret."""
    ours = kex.generate(method, entropy_of(1))
    size = KE[method].public_value_bytes

    for point in (bytes(size), (1).to_bytes(size, "little")):
        with pytest.raises(InvalidSyntax, match="small order"):
            ours.compute(point)


def test_orders_are_those_of_the_curves():
    """n*G is the point at infinity, so (n-1)*G has the x coordinate of G: a wrong order shows."""
    for method, (curve, order) in kex._CURVES.items():
        g = derive_private_key(1, curve).public_key().public_numbers()
        minus_g = derive_private_key(order - 1, curve).public_key().public_numbers()
        assert g.x == minus_g.x, method
        assert g.y != minus_g.y, method


def test_method_without_code_is_refused():
    with pytest.raises(LocalError, match="MODP_768"):
        kex.generate(Ke.MODP_768, entropy_of(1))


def test_half_of_a_key_exchange_does_not_print_its_secret():
    ours = kex.generate(Ke.MODP_2048, entropy_of(0x7EADBEEF))

    assert "_agree" not in repr(ours)
