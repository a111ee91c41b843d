"""Key exchange against Wycheproof, RFC 5903, RFC 7748 and the groups another library ships."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import derive_private_key

from gateway.ike.crypto import kex, modp
from gateway.ike.errors import InvalidSyntax, LocalError
from gateway.ike.wire.notify import NotifyType
from gateway.ipsec.algorithms import KE, Ke
from gateway.ipsec.secret import Secret
from tests.vectors.read import wycheproof

IMPLEMENTED = (
    Ke.CURVE25519,
    Ke.CURVE448,
    Ke.ECP_256,
    Ke.ECP_384,
    Ke.ECP_521,
    Ke.MODP_2048,
    Ke.MODP_3072,
    Ke.MODP_4096,
    Ke.MODP_6144,
    Ke.MODP_8192,
)


def entropy_of(seed):
    """Deterministic and different at each call."""
    state = [seed]

    def entropy(size):
        state[0] += 1
        return (state[0].to_bytes(4, "big") * (size // 4 + 1))[:size]

    return entropy


@pytest.mark.parametrize("method", IMPLEMENTED, ids=lambda method: method.name)
def test_both_ends_agree_and_lengths_are_those_of_the_table(method):
    ours = kex.generate(method, entropy_of(0x11223344))
    theirs = kex.generate(method, entropy_of(0x55667788))

    secret = ours.compute(theirs.public)

    assert secret == theirs.compute(ours.public)
    assert len(secret) == KE[method].secret_bytes
    assert len(ours.public) == KE[method].public_value_bytes
    assert ours.public != theirs.public


@pytest.mark.parametrize("method", IMPLEMENTED, ids=lambda method: method.name)
@pytest.mark.parametrize("change", [b"", b"\x01"], ids=["short", "long"])
def test_public_value_of_wrong_length_is_refused_with_invalid_syntax(method, change):
    ours = kex.generate(method, entropy_of(1))
    theirs = kex.generate(method, entropy_of(2)).public

    with pytest.raises(InvalidSyntax, match="bytes") as caught:
        ours.compute(theirs + change if change else theirs[:-1])

    assert caught.value.notify == NotifyType.INVALID_SYNTAX


@pytest.mark.parametrize("method", [Ke.MODP_2048, Ke.MODP_3072, Ke.MODP_4096], ids=lambda m: m.name)
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

    for bits in (2048, 3072, 4096, 6144, 8192):
        assert modp.modulus(Ke[f"MODP_{bits}"]) == getattr(groups, f"modp{bits}").m


def test_modp_shared_secret_keeps_leading_zeros():
    """2^x for the smallest exponents has far fewer bits than the prime (RFC 7296 §2.14)."""
    ours = kex.generate(Ke.MODP_2048, lambda size: bytes(size))

    secret = ours.compute((2).to_bytes(256, "big"))

    assert len(secret) == 256
    assert secret.reveal() == pow(2, 1 << 319, modp.modulus(Ke.MODP_2048)).to_bytes(256, "big")


def test_ecp_256_meets_rfc_5903():
    """RFC 5903 §8.1: i and r, their public values and the shared secret."""
    i = 0xC88F01F510D9AC3F70A292DAA2316DE544E9AAB8AFE84049C62A9C57862D1433
    r = 0xC6EF9C5D78AE012A011164ACB397CE2088685D8F06BF9BE0B283AB46476BEE53
    order = kex._CURVES[Ke.ECP_256][1]

    # generate() computes drawn % (n - 1) + 1, so this draws the private value wanted.
    ours = kex.generate(Ke.ECP_256, lambda size: (i - 1).to_bytes(size, "big"))
    theirs = kex.generate(Ke.ECP_256, lambda size: (r - 1).to_bytes(size, "big"))

    assert i < order
    assert ours.public.hex() == (
        "dad0b65394221cf9b051e1feca5787d098dfe637fc90b9ef945d0c3772581180"
        "5271a0461cdb8252d61f1c456fa3e59ab1f45b33accf5f58389e0577b8990bb3"
    )
    assert ours.compute(theirs.public) == Secret(
        bytes.fromhex("d6840f6b42f6edafd13116e0e12565202fef8e9ece7dce03812464d04b9442de")
    )


def test_orders_are_those_of_the_curves():
    """n*G is the point at infinity, so (n-1)*G has the x coordinate of G: a wrong order shows."""
    for method, (curve, order) in kex._CURVES.items():
        g = derive_private_key(1, curve).public_key().public_numbers()
        minus_g = derive_private_key(order - 1, curve).public_key().public_numbers()
        assert g.x == minus_g.x, method
        assert g.y != minus_g.y, method


@pytest.mark.parametrize(
    ("file", "method"),
    [
        ("ecdh_secp256r1_ecpoint", Ke.ECP_256),
        ("ecdh_secp384r1_ecpoint", Ke.ECP_384),
        ("ecdh_secp521r1_ecpoint", Ke.ECP_521),
    ],
)
def test_ecdh_meets_wycheproof(file, method):
    order = kex._CURVES[method][1]
    valid = refused = 0
    for group in wycheproof(file):
        for case in group["tests"]:
            point, private = bytes.fromhex(case["public"]), int(case["private"], 16)
            if point[:1] != b"\x04" or not 0 < private < order:
                continue  # compressed points have no form in a KE payload
            ours = kex.generate(method, lambda size, d=private: (d - 1).to_bytes(size, "big"))
            if case["result"] == "invalid":
                with pytest.raises(InvalidSyntax):
                    ours.compute(point[1:])
                refused += 1
            else:
                assert ours.compute(point[1:]).reveal().hex() == case["shared"], case["tcId"]
                valid += 1
    assert valid > 50
    assert refused > 0


@pytest.mark.parametrize(("file", "method"), [("x25519", Ke.CURVE25519), ("x448", Ke.CURVE448)])
def test_xdh_meets_wycheproof_and_refuses_the_zero_secret(file, method):
    size = KE[method].public_value_bytes
    valid = zero = 0
    for group in wycheproof(file):
        for case in group["tests"]:
            private, public = bytes.fromhex(case["private"]), bytes.fromhex(case["public"])
            ours = kex.generate(method, lambda _, d=private: d)
            if len(public) != size or not any(bytes.fromhex(case["shared"])):
                with pytest.raises(InvalidSyntax):
                    ours.compute(public)
                zero += 1
            else:
                assert ours.compute(public).reveal().hex() == case["shared"], case["tcId"]
                valid += 1
    assert valid > 80
    assert zero > 0


def test_method_without_code_is_refused():
    with pytest.raises(LocalError, match="MODP_768"):
        kex.generate(Ke.MODP_768, entropy_of(1))


def test_half_of_a_key_exchange_does_not_print_its_secret():
    ours = kex.generate(Ke.MODP_2048, entropy_of(0x7EADBEEF))

    assert "_agree" not in repr(ours)
