"""A real strongSwan charon, its kernel-netlink plugin on the null kernel: what its user-space ESP cannot."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Self

from gateway.bench.topology import Site
from tests.interop.null_kernel import InstalledSa, NullKernel
from tests.interop.peer import CONNECTION, OUR_ID, THEIR_ID, Wanted
from tests.interop.strongswan import Charon, version

_SWANCTL_CONF = """\
connections {{ net {{
  version = 2
  local_addrs = {local}
  remote_addrs = {remote}
  proposals = {ike}
  {options}
  local {{
    auth = psk
    id = {their_id}
  }}
  remote {{
    auth = psk
    id = {our_id}
  }}
  children {{
{children}
  }}
}} }}
secrets {{ ike-1 {{
  id-a = {our_id}
  id-b = {their_id}
  secret = "{psk}"
}} }}
"""


@dataclass(slots=True)
class NullCharon:
    """One charon with one connection; `with NullCharon(...) as peer:` starts and ends it."""

    name: ClassVar[str] = "strongSwan"
    esp: ClassVar[tuple[str, ...]] = ("aes256gcm16-x25519",)

    here: Site
    there: Site
    wanted: Wanted
    state: Path
    setup: tuple[str, ...] = ()
    """More lines of the `charon` section of strongswan.conf."""
    charon: Charon = field(init=False, repr=False)
    _kernel: NullKernel = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._kernel = NullKernel(self.state)
        self.charon = Charon(
            self.here.gateway,
            self.state,
            self._connections(),
            settings="\n  ".join(("delete_rekeyed_delay = 1", *self.setup)),
            backend="",
            environment=self._kernel.environment(),
        )

    def version(self) -> str:
        return version()

    def __enter__(self) -> Self:
        self.charon.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.charon.stop()

    def initiate(self) -> None:
        self.charon.swanctl("--initiate", "--child", CONNECTION, "--timeout", "60", check=False)

    def rekey_child(self) -> None:
        self.charon.swanctl("--rekey", "--child", CONNECTION)

    def rekey_ike(self) -> None:
        self.charon.swanctl("--rekey", "--ike", CONNECTION)

    def delete_child(self) -> None:
        self.charon.swanctl("--terminate", "--child", CONNECTION)

    def delete_ike(self) -> None:
        self.charon.swanctl("--terminate", "--ike", CONNECTION)

    def installed(self) -> dict[int, InstalledSa]:
        return self._kernel.installed()

    def present(self) -> set[int]:
        return self._kernel.present()

    def sa_entries(self) -> list[dict[str, object]]:
        """Return every installation and removal of an SA, in order."""
        return [entry for entry in self._kernel.entries() if "spi" in entry]

    def log(self) -> str:
        return self.charon.log()

    def kill(self) -> None:
        self.charon.kill()

    def _connections(self) -> str:
        wanted = self.wanted
        options = [option for option in wanted.their_options if not option.startswith("child.")]
        child_options = [one.removeprefix("child.") for one in wanted.their_options if one not in options]
        options += [f"dpd_delay = {wanted.dpd_s}s"] if wanted.dpd_s else []
        proposals = f"esp_proposals = {','.join(wanted.esp or self.esp)}"
        if wanted.ah:
            proposals = f"ah_proposals = {','.join(wanted.ah)}"
        children: list[str] = []
        for name in wanted.children:
            lines = [f"mode = {wanted.mode}", proposals, *child_options]
            if wanted.mode == "tunnel":
                ours, theirs = wanted.selectors(name, self.there, self.here)
                lines += [f"local_ts = {theirs}", f"remote_ts = {ours}"]
            children.append("\n      ".join((f"    {name} {{", *lines)) + "\n    }")
        return _SWANCTL_CONF.format(
            local=wanted.outer(self.here),
            remote=wanted.outer(self.there),
            our_id=OUR_ID,
            their_id=THEIR_ID,
            ike=",".join(wanted.their_ike or wanted.ike),
            options="\n  ".join(options),
            children="\n".join(children),
            psk=wanted.their_psk,
        )
