"""Reading the secrets of exchanges that were captured, for `ipsecgw inspect --secrets`.

A JSON object of lists, one per place that logged (both ends, say); each list has entries in the order in
which they were made:

```
{"initiator": [{"label": "key exchange secret", "hex": "2489..."}, {"label": "SKEYSEED", "hex": "a84b..."}]}
```
Inputs are `key exchange secret` (g^ir), `additional key exchange secret` (RFC 9370) and `secret` (a
pre-shared key, or the MSK of EAP). Everything else is what its writer derived from them, to be compared. An
entry of `group` `CHD` is about a Child SA; labels are those of strongSwan's log at level 4, without case.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from gateway.inspect.errors import InspectError
from gateway.ipsec.secret import Secret

MAX_SECRETS_BYTES: Final = 64 * 1024 * 1024

SKEYSEED: Final = "SKEYSEED"
IKE_VALUES: Final = {
    "skeyseed": SKEYSEED,
    "sk_d secret": "SK_d",
    "sk_ai secret": "SK_ai",
    "sk_ar secret": "SK_ar",
    "sk_ei secret": "SK_ei",
    "sk_er secret": "SK_er",
    "sk_pi secret": "SK_pi",
    "sk_pr secret": "SK_pr",
}
"""Label to the name that RFC 7296 §2.14 has for it."""
CHILD_VALUES: Final = {
    "encryption initiator key": "encryption, initiator to responder",
    "integrity initiator key": "integrity, initiator to responder",
    "encryption responder key": "encryption, responder to initiator",
    "integrity responder key": "integrity, responder to initiator",
}
"""Label to our name for the part of KEYMAT (RFC 7296 §2.17)."""
_CHILD_GROUP: Final = "CHD"
_V1_LABELS: Final = frozenset({"shared diffie hellman secret", "skeyid", "skeyid_d", "skeyid_a", "skeyid_e"})


@dataclass(slots=True, kw_only=True)
class ExchangeSecrets:
    """What one list says of the making of one IKE SA or Child SA."""

    shared_secret: Secret | None = None
    """g^ir; None for a Child SA without a key exchange of its own."""
    additional: Secret | None = None
    """Of further key exchanges (RFC 9370 §2.2.4), one behind the other."""
    seed: bytes = b""
    """Ni | Nr of an IKE SA; of a Child SA with the shared secrets around them. Empty: not given."""
    values: dict[str, Secret] = field(default_factory=dict)
    """What was derived, by the names of `IKE_VALUES` or `CHILD_VALUES`."""
    is_used: bool = False
    """An exchange of the capture is this one."""


@dataclass(slots=True)
class SecretLog:
    """One list."""

    name: str
    ike: list[ExchangeSecrets] = field(default_factory=list)
    child: list[ExchangeSecrets] = field(default_factory=list)
    shared_keys: list[Secret] = field(default_factory=list)
    """Pre-shared keys and MSKs."""
    signed_octets: list[Secret] = field(default_factory=list)
    """What AUTH covers (RFC 7296 §2.15)."""
    auths: list[Secret] = field(default_factory=list)
    """Authentication Data that a shared key made."""
    has_v1: bool = False
    """There are secrets of IKEv1, which nobody here understands."""


def read_secrets(path: Path) -> tuple[SecretLog, ...]:
    """Read a file of secrets.

    Raises:
        InspectError: It cannot be read, is not of this form, or has nothing of use. Secrets are never quoted.
    """
    try:
        if path.stat().st_size > MAX_SECRETS_BYTES:
            raise InspectError(f"{path}: secrets of more than {MAX_SECRETS_BYTES} bytes")
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InspectError(f"{path}: {error.strerror or error}") from None
    except (ValueError, RecursionError):
        raise InspectError(f"{path}: not a JSON file") from None
    if not isinstance(content, dict):
        raise InspectError(f"{path}: not a JSON object of lists")
    logs = tuple(_read_log(f"{path}: {name}", name, entries) for name, entries in content.items())
    if not any(log.ike or log.child or log.shared_keys or log.has_v1 for log in logs):
        raise InspectError(f"{path}: no entry has the label of a secret that is of use")
    return logs


def _read_log(place: str, name: str, entries: object) -> SecretLog:
    if not isinstance(entries, list):
        raise InspectError(f"{place}: not a list of entries")
    log = SecretLog(name)
    for number, entry in enumerate(entries):
        label, value = _read_entry(f"{place}[{number}]", entry)
        if isinstance(entry, dict) and entry.get("group") == _CHILD_GROUP:
            _add_child_entry(log, label, value)
        else:
            _add_ike_entry(log, label, value)
    return log


def _read_entry(place: str, entry: object) -> tuple[str, bytes]:
    label = entry.get("label") if isinstance(entry, dict) else None
    text = entry.get("hex") if isinstance(entry, dict) else None
    if not isinstance(label, str) or not isinstance(text, str):
        raise InspectError(f"{place}: an entry has a label and a value in hex, both texts")
    try:
        return label.casefold(), bytes.fromhex(text)
    except ValueError:
        raise InspectError(f"{place}: the value is not an even number of hex digits") from None


def _add_ike_entry(log: SecretLog, label: str, value: bytes) -> None:
    if label == "key exchange secret":
        log.ike.append(ExchangeSecrets(shared_secret=Secret(value)))
    elif label == "secret":
        log.shared_keys.append(Secret(value))
    elif label.startswith("octets = "):
        log.signed_octets.append(Secret(value))
    elif label.startswith("auth = "):
        log.auths.append(Secret(value))
    elif label in _V1_LABELS:
        log.has_v1 = True
    elif log.ike:
        current = log.ike[-1]
        if label == "additional key exchange secret":
            current.additional = Secret(value) if value else None
        elif label == "nonces":
            current.seed = value
        elif label in IKE_VALUES:
            # What comes a second time is what a PPK made of it (RFC 8784 §3).
            current.values.setdefault(IKE_VALUES[label], Secret(value))


def _add_child_entry(log: SecretLog, label: str, value: bytes) -> None:
    if label == "key exchange secret":
        log.child.append(ExchangeSecrets(shared_secret=Secret(value)))
    elif label == "seed":
        # Without a key exchange of its own, a Child SA begins with this.
        if not log.child or log.child[-1].seed or log.child[-1].values:
            log.child.append(ExchangeSecrets())
        log.child[-1].seed = value
    elif label == "additional key exchange secret" and log.child:
        log.child[-1].additional = Secret(value) if value else None
    elif label in CHILD_VALUES and log.child:
        log.child[-1].values[CHILD_VALUES[label]] = Secret(value)
