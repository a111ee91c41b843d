"""Write the vectors that the engine's C tests use as C: vectors_as_c.py TESTS/VECTORS > vectors.h.

Taken are those that ESP and AH can express: nonces of salt and 8 bytes, associated data that is SPI and
sequence number (8 or 12 bytes), keys and ICVs of the lengths that the RFCs fix.
"""

import hmac
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ESP, AH = 50, 51
ENCR_NULL, ENCR_CBC, ENCR_GCM, ENCR_CHACHA = 11, 12, 20, 28
ENCR_CCM = {64: 14, 96: 15, 128: 16}
GMAC = {128: 9, 192: 10, 256: 11}
HMACS = {"hmac_sha256": (12, 256, 128), "hmac_sha384": (13, 384, 192), "hmac_sha512": (14, 512, 256)}


def vector(name: str, protocol: int, encryption: int, integrity: int, key_bits: int, **texts: Any) -> str:
    fields = [texts.get(key, "") for key in ("key", "mac_key", "iv", "aad", "text", "sealed")]
    numbers = f"{protocol}, {encryption}, {integrity}, {key_bits}"
    quoted = ", ".join(f'"{field}"' for field in fields)
    return f'\t{{"{name}", {numbers}, {quoted}, {int(texts.get("valid", True))}}},'


def groups(folder: Path, name: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    for group in json.loads((folder / "wycheproof" / f"{name}.json").read_text())["testGroups"]:
        for test in group["tests"]:
            yield group, test


def aeads(folder: Path) -> Iterator[str]:
    for name, iv_bits in (("aes_gcm", 96), ("chacha20_poly1305", 96), ("aes_ccm", 88)):
        for group, test in groups(folder, name):
            if group["ivSize"] != iv_bits or len(test["aad"]) // 2 not in (8, 12) or not test["msg"]:
                continue
            encryption = {"aes_gcm": ENCR_GCM, "chacha20_poly1305": ENCR_CHACHA}.get(name)
            encryption = encryption or ENCR_CCM[group["tagSize"]]
            salt = iv_bits // 4 - 16
            yield vector(
                f"wycheproof {name} {test['tcId']}",
                ESP,
                encryption,
                0,
                group["keySize"],
                key=test["key"] + test["iv"][:salt],
                iv=test["iv"][salt:],
                aad=test["aad"],
                text=test["msg"],
                sealed=test["ct"] + test["tag"],
                valid=test["result"] == "valid",
            )


def macs(folder: Path) -> Iterator[str]:
    for name, (integrity, key_bits, tag_bits) in HMACS.items():
        for group, test in groups(folder, name):
            if (group["keySize"], group["tagSize"]) == (key_bits, tag_bits) and test["msg"]:
                yield mac(f"wycheproof {name} {test['tcId']}", integrity, test, tag_bits)
    # Their tags are longer than AH's and ESP's: what is wrong may lie in the part that is cut off.
    for name, integrity, key_bits in (("hmac_sha1", 2, 160), ("aes_cmac", 8, 128)):
        for group, test in groups(folder, name):
            whole = group["keySize"] == key_bits and group["tagSize"] > 96
            if whole and test["msg"] and test["result"] == "valid":
                yield mac(f"wycheproof {name} {test['tcId']}", integrity, test, 96)
    for group, test in groups(folder, "aes_gmac"):
        if group["ivSize"] == 96 and test["msg"]:
            salted = test | {"key": test["key"] + test["iv"][:8], "iv": test["iv"][8:]}
            yield mac(f"wycheproof aes_gmac {test['tcId']}", GMAC[group["keySize"]], salted, 128)


def mac(name: str, integrity: int, test: dict[str, Any], tag_bits: int) -> str:
    return vector(
        name,
        AH,
        ENCR_NULL,
        integrity,
        0,
        mac_key=test["key"],
        iv=test.get("iv", ""),
        aad=test["msg"],
        sealed=test["tag"][: tag_bits // 4],
        valid=test["result"] == "valid",
    )


def cbc_icv(esp: str) -> str:
    return hmac.digest(bytes(32), bytes.fromhex(esp), "sha256")[:16].hex()


def printed(folder: Path) -> Iterator[str]:
    """Packets that documents print."""
    for number, case in enumerate(json.loads((folder / "esp" / "aes_gcm_mcgrew.json").read_text())["cases"]):
        sequence = case["sequence"] if case["esn"] else case["sequence"][8:]
        yield vector(
            f"draft-mcgrew-gcm-test {number}",
            ESP,
            ENCR_GCM,
            0,
            len(case["key"]) * 4,
            key=case["key"] + case["salt"],
            iv=case["iv"],
            aad=case["spi"] + sequence,
            text=case["plaintext"],
            sealed=case["ciphertext_and_icv"],
        )
    for case in json.loads((folder / "esp" / "aes_cbc_rfc3602.json").read_text())["cases"]:
        # Printed without integrity, which no SA may lack: with an ICV of our own.
        text_bytes = len(case["esp"]) // 2 - 8 - 16
        text = bytes.fromhex(case["payload"])
        pad = text_bytes - len(text) - 2
        trailer = bytes(range(1, pad + 1)) + bytes((pad, case["next_header"]))
        yield vector(
            f"RFC 3602 section 4 case {case['case']}",
            ESP,
            ENCR_CBC,
            12,
            len(case["key"]) * 4,
            key=case["key"],
            mac_key="00" * 32,
            iv=case["esp"][16:48],
            aad=case["esp"][:16],
            text=(text + trailer).hex(),
            sealed=case["esp"][48:] + cbc_icv(case["esp"]),
        )
    case = json.loads((folder / "esp" / "chacha20_poly1305_rfc7634.json").read_text())
    payload = case["payload"] + "01020204"
    yield vector(
        "RFC 7634 appendix A",
        ESP,
        ENCR_CHACHA,
        0,
        256,
        key=case["key_and_salt"],
        iv=case["esp"][16:32],
        aad=case["esp"][:16],
        text=payload,
        sealed=case["esp"][32:],
    )


def replay(folder: Path) -> Iterator[str]:
    verdicts = {
        "accept": "GW_DROP_NONE",
        "replay": "GW_DROP_REPLAY",
        "replay_window": "GW_DROP_REPLAY_WINDOW",
    }
    cases = []
    for path in sorted((folder / "replay").glob("*.json")):
        for case in json.loads(path.read_text())["cases"]:
            steps = [f"{{{s[0]}u, {verdicts[s[1]]}, {s[2] if len(s) > 2 else 0}u}}" for s in case["steps"]]
            name = f"replay_{len(cases)}"
            yield f"static const struct step {name}[] = {{{', '.join(steps)}}};"
            label = f"{path.stem}: {case['name']}"
            cases.append(f'\t{{"{label}", {case["window"]}, {int(case["esn"])}, {len(steps)}, {name}}},')
    yield "static const struct replay_case replay_cases[] = {"
    yield from cases
    yield "};"


def main() -> None:
    folder = Path(sys.argv[1])
    print("/* Made by tests/engine/vectors_as_c.py from tests/vectors; each file there names its source. */")
    print("static const struct vector vectors[] = {")
    for line in (*printed(folder), *aeads(folder), *macs(folder)):
        print(line)
    print("};")
    for line in replay(folder):
        print(line)


if __name__ == "__main__":
    main()
