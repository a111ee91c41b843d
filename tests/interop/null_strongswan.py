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
  children {{ net {{
    mode = {mode}
    {proposals} = {esp}
    {child_options}
  }} }}
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
            settings="\n  ".join(self.setup),
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
        self.charon.swanctl("--initiate", "--child", CONNECTION, "--timeout", "10", check=False)

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

    def log(self) -> str:
        return self.charon.log()

    def kill(self) -> None:
        self.charon.kill()

    def _connections(self) -> str:
        wanted = self.wanted
        child_options = [option for option in wanted.their_options if option.startswith("child.")]
        options = [option for option in wanted.their_options if option not in child_options]
        options += [f"dpd_delay = {wanted.dpd_s}s"] if wanted.dpd_s else []
        if wanted.mode == "tunnel":
            child_options += [f"local_ts = {self.here.inside}", f"remote_ts = {self.there.inside}"]
        return _SWANCTL_CONF.format(
            local=wanted.outer(self.here),
            remote=wanted.outer(self.there),
            our_id=OUR_ID,
            their_id=THEIR_ID,
            ike=",".join(wanted.their_ike or wanted.ike),
            options="\n  ".join(options),
            mode=wanted.mode,
            proposals="esp_proposals",
            esp=",".join(wanted.esp or self.esp),
            child_options="\n    ".join(option.removeprefix("child.") for option in child_options),
            psk=wanted.their_psk,
        )
