"""Which driver the kernel would take for each algorithm, and whether it uses the processor's instructions."""

import pytest

from gateway.hardware.crypto import judge_driver, parse_crypto, parse_proc_crypto
from gateway.hardware.facts import Answer, CryptoFacts
from gateway.hardware.kernel_config import KernelConfig
from gateway.hardware.readings import Reading
from tests.unit.hardware.machines import DEBIAN, DENIED, UNREADABLE, config, reading, sample

EMPTY = reading("", "/proc/crypto")


def crypto(
    name: str, proc_crypto: Reading, kernel_config: KernelConfig = DEBIAN, architecture: str = "x86_64"
) -> CryptoFacts:
    entries = parse_crypto(proc_crypto, kernel_config, architecture=architecture)
    return next(entry for entry in entries if entry.name == name)


def test_the_highest_priority_wins_and_internal_drivers_do_not_count() -> None:
    gcm = crypto("rfc4106(gcm(aes))", sample("crypto-aesni"))

    assert (gcm.driver, gcm.priority) == ("rfc4106-gcm-aesni", 400)
    assert gcm.available.answer is Answer.YES
    assert gcm.accelerated.answer is Answer.YES


def test_an_internal_driver_is_not_taken_whatever_its_priority() -> None:
    paragraph = "name : gcm(aes)\ndriver : {}\npriority : {}\ninternal : {}\n\n"
    listing = paragraph.format("inside-aesni", 900, "yes") + paragraph.format("generic-gcm-aesni", 400, "no")

    assert crypto("rfc4106(gcm(aes))", reading(listing)).driver == "generic-gcm-aesni"


def test_arm_has_its_own_names() -> None:
    gcm = crypto("rfc4106(gcm(aes))", sample("crypto-arm64-ce"), architecture="aarch64")
    cbc = crypto("cbc(aes)", sample("crypto-arm64-ce"), architecture="aarch64")

    assert (gcm.driver, gcm.accelerated.answer) == ("rfc4106-gcm-aes-ce", Answer.YES)
    assert (cbc.driver, cbc.priority) == ("cbc-aes-ce", 300)


def test_a_part_tells_the_driver_of_a_template_that_is_not_registered_yet() -> None:
    gmac = crypto("rfc4543(gcm(aes))", sample("crypto-aesni"))

    assert gmac.driver == "generic-gcm-aesni"
    assert gmac.available.answer is Answer.YES
    assert "until its first use; /proc/config: CONFIG_CRYPTO_GCM=m" in gmac.available.evidence


@pytest.mark.parametrize(
    ("kernel_config", "answer", "evidence"),
    [
        (DEBIAN, Answer.YES, "CONFIG_CRYPTO_GCM=m"),
        (config(CRYPTO_SEQIV="y"), Answer.NO, "CONFIG_CRYPTO_GCM is not set"),
        (config(CRYPTO_GCM="y"), Answer.NO, "CONFIG_CRYPTO_SEQIV is not set"),
        (UNREADABLE, Answer.UNKNOWN, "/boot/config-6.12: no such file or directory"),
    ],
)
def test_what_is_not_listed_is_there_if_the_build_options_say_so(
    kernel_config: KernelConfig, answer: Answer, evidence: str
) -> None:
    gcm = crypto("rfc4106(gcm(aes))", EMPTY, kernel_config)

    assert gcm.available.answer is answer
    assert evidence in gcm.available.evidence
    assert (gcm.driver, gcm.priority) == ("", None)


def test_acceleration_that_is_not_built_in_is_denied_before_the_first_use() -> None:
    gcm = crypto("rfc4106(gcm(aes))", EMPTY, config(CRYPTO_GCM="y", CRYPTO_SEQIV="y"))

    assert gcm.accelerated.answer is Answer.NO
    assert gcm.accelerated.evidence == "/proc/config.gz: CONFIG_CRYPTO_AES_NI_INTEL is not set"


def test_acceleration_is_not_promised_by_a_module_that_may_be_loaded() -> None:
    assert crypto("rfc4106(gcm(aes))", EMPTY, DEBIAN).accelerated.answer is Answer.UNKNOWN


def test_a_listing_that_cannot_be_read_is_no_absence() -> None:
    gcm = crypto("rfc4106(gcm(aes))", DENIED, UNREADABLE)

    assert gcm.available.answer is Answer.UNKNOWN
    assert "permission denied" in gcm.available.evidence


@pytest.mark.parametrize(
    ("driver", "answer"),
    [
        ("rfc4106-gcm-aesni", Answer.YES),
        ("generic-gcm-aesni", Answer.YES),
        ("rfc4106-gcm-vaes-avx10_512", Answer.YES),
        ("rfc4106(gcm_base(ctr-aes-aesni,ghash-clmulni))", Answer.YES),
        ("seqiv(rfc4106-gcm-aesni)", Answer.YES),
        ("sha256-ni", Answer.YES),
        ("sha512-avx2", Answer.YES),
        ("gcm-aes-ce", Answer.YES),
        ("cbc-aes-neonbs", Answer.YES),
        ("qat_aes_gcm", Answer.YES),
        ("authenc(hmac(sha256-ni),cbc-aes-aesni)", Answer.YES),
        ("rfc4106(gcm_base(ctr-aes-aesni,ghash-generic))", Answer.NO),
        ("rfc7539(chacha20-generic,poly1305-generic)", Answer.NO),
        ("cbc(ecb(aes-fixed-time))", Answer.NO),
        ("hmac(sha1-generic)", Answer.NO),
        ("hmac-sha256-lib", Answer.UNKNOWN),
        ("something-new", Answer.UNKNOWN),
    ],
)
def test_a_driver_is_as_fast_as_its_slowest_part(driver: str, answer: Answer) -> None:
    assert judge_driver(driver)[0] is answer


def test_half_a_paragraph_is_left_out() -> None:
    assert parse_proc_crypto("name : aes\ndriver : aes-generic\n\nname : x\npriority : 1\n") == ()
