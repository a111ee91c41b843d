"""What became of each value that secrets were given for, and which of the secrets are accounted for.

An exchange is found in a log by its nonces, else by its turn. No key is printed or returned as text.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from gateway.inspect.secrets import ExchangeSecrets, SecretLog
from gateway.ipsec.secret import Secret


class Verdict(Enum):
    """What became of one value; the value is what is printed."""

    OK = "OK"
    DIFFERS = "differs"
    NOT_VERIFIED = "not verified"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """One value."""

    subject: str
    """Of which SA, by its SPIs."""
    value: str
    """The name RFC 7296 has for it."""
    verdict: Verdict
    detail: str = ""
    """From what it differs, or why it was not verified."""


@dataclass(frozen=True, slots=True)
class Logged:
    """What each log has of one exchange, and the log's name."""

    entries: tuple[tuple[str, ExchangeSecrets], ...]

    @property
    def shared_secret(self) -> Secret | None:
        """Return g^ir; None if no log has it."""
        found = (exchange.shared_secret for _, exchange in self.entries)
        return next((secret for secret in found if secret is not None), None)

    @property
    def additional(self) -> tuple[Secret, ...]:
        """Return what further key exchanges gave, as one secret; nothing if there were none."""
        found = (exchange.additional for _, exchange in self.entries)
        return tuple(secret for secret in found if secret is not None)[:1]


class Ledger:
    """The values of one capture, compared with what was logged of them."""

    def __init__(self, logs: Sequence[SecretLog]) -> None:
        self.results: list[Checked] = []
        self.is_incomplete = False
        """Something could not be followed: what the secrets have beyond that proves nothing."""
        self._logs = logs

    # --- secrets ----------------------------------------------------------------------------------

    @property
    def shared_keys(self) -> list[Secret]:
        """Return every pre-shared key and MSK."""
        return [key for log in self._logs for key in log.shared_keys]

    def take_ike(self, nonces: bytes) -> Logged:
        """Return what was logged of the making of an IKE SA; nothing else gets it again."""
        return self._take(lambda log: log.ike, nonces, has_ke=True)

    def take_child(self, nonces: bytes, *, has_ke: bool) -> Logged:
        """Return what was logged of the making of a Child SA, with a key exchange of its own or without."""
        return self._take(lambda log: log.child, nonces, has_ke=has_ke)

    def _take(
        self, exchanges_of: Callable[[SecretLog], list[ExchangeSecrets]], nonces: bytes, *, has_ke: bool
    ) -> Logged:
        taken = []
        for log in self._logs:
            for exchange in exchanges_of(log):
                is_next = not exchange.seed and (exchange.shared_secret is not None) is has_ke
                is_this = bool(exchange.seed) and nonces in exchange.seed
                if not exchange.is_used and (is_next or is_this):
                    exchange.is_used = True
                    taken.append((log.name, exchange))
                    break
        return Logged(tuple(taken))

    # --- values -----------------------------------------------------------------------------------

    def compare(self, subject: str, value: str, computed: Secret, logged: Logged, *, key: str = "") -> None:
        """Compare one computed value with what each log has of it, under `key` or the same name."""
        known = [(name, exchange.values.get(key or value)) for name, exchange in logged.entries]
        if all(secret is None for _, secret in known):
            self.not_verified(subject, value, "the secrets do not hold it")
            return
        self._compared(subject, value, [name for name, s in known if s is not None and s != computed])

    def compare_octets(self, subject: str, value: str, octets: Secret) -> None:
        """Compare what AUTH covers with the logs, where they have any of it."""
        logs = [log for log in self._logs if log.signed_octets]
        if logs:
            others = [log.name for log in logs if not any(octets == one for one in log.signed_octets)]
            self._compared(subject, value, others)

    def compare_auth(self, subject: str, value: str, auth: Secret) -> None:
        """Note that a shared key gives this AUTH, unless a log has another."""
        logs = [log for log in self._logs if log.auths]
        self._compared(
            subject, value, [log.name for log in logs if not any(auth == one for one in log.auths)]
        )

    def _compared(self, subject: str, value: str, others: Sequence[str]) -> None:
        detail = f"from what {' and '.join(others)} logged" if others else ""
        self.note(subject, value, is_right=not others, detail=detail)

    def note(self, subject: str, value: str, *, is_right: bool, detail: str = "") -> None:
        """Note a value that was compared; `detail` says from what it differs."""
        verdict = Verdict.OK if is_right else Verdict.DIFFERS
        self._add(subject, value, verdict, "" if is_right else detail)

    def not_verified(self, subject: str, value: str, why: str) -> None:
        """Note a value that could not be compared."""
        self._add(subject, value, Verdict.NOT_VERIFIED, why)

    def _add(self, subject: str, value: str, verdict: Verdict, detail: str) -> None:
        self.results.append(Checked(subject=subject, value=value, verdict=verdict, detail=detail))

    # --- the end ----------------------------------------------------------------------------------

    def close(self, *, is_cut: bool) -> list[Checked]:
        """Return all results, once the capture was read.

        Secrets that fit no exchange are a failure: they are of another capture, or wrong.

        Args:
            is_cut: The capture ends too early.
        """
        for log in self._logs:
            subject = f"secrets of {log.name}"
            if log.has_v1:
                self.not_verified(subject, "SKEYID", "IKEv1 is not supported")
            for what, exchanges in (("IKE SA", log.ike), ("Child SA", log.child)):
                for number, exchange in enumerate(exchanges, start=1):
                    if exchange.is_used:
                        continue
                    if is_cut or self.is_incomplete:
                        self.not_verified(subject, f"{what} {number}", "its exchange could not be read")
                    else:
                        self.note(
                            subject,
                            f"{what} {number}",
                            is_right=False,
                            detail="fits no exchange of the capture",
                        )
        return self.results
