"""The IKE core as the rooms of the controller use it: verbs with names, and a way to begin it anew.

A controller that finds SAs of an earlier life at its datapath begins its core anew, before it has spoken to
anyone, so that it says no INITIAL_CONTACT. Everybody else therefore holds on to this object and not to the
driver inside.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TypeVar

from gateway.controller.driver import Driver, Handler
from gateway.ike.endpoint import Endpoint, EndpointOptions
from gateway.ike.errors import LocalError
from gateway.ike.events import ChildSaId, ChildSaInfo, IkeSaId, IkeSaInfo, IkeSaKeys, RequestId, Result
from gateway.ike.path import Path
from gateway.ipsec.connection import Connection
from gateway.ipsec.sa import IpAddress, Spi
from gateway.observe.logs import get_logger

_log = get_logger(__name__)

T = TypeVar("T")


class Core:
    """One IKE core and its driver.

    Commands about something that may be gone by now (`terminate_...`, `expire_child`, ...) do nothing then.

    Args:
        entropy: Random bytes.
        options: Options of the endpoint.
        send: Sends one datagram.
        handler: Takes requests and events.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        *,
        entropy: Callable[[int], bytes],
        options: EndpointOptions,
        send: Callable[[Path, bytes], None],
        handler: Handler,
        clock: Callable[[], float],
    ) -> None:
        self._entropy = entropy
        self._options = options
        self._send = send
        self._handler = handler
        self._clock = clock
        self._cpus = 0
        self._driver = self._make_driver((), options)

    def begin_anew(self, connections: Iterable[Connection], *, send_initial_contact: bool) -> None:
        """Forget the core and begin with a new one that has the same connections."""
        self._driver.stop()
        options = replace(self._options, send_initial_contact=send_initial_contact)
        self._driver = self._make_driver(connections, options)

    def _make_driver(self, connections: Iterable[Connection], options: EndpointOptions) -> Driver:
        endpoint = Endpoint(entropy=self._entropy, connections=connections, options=options)
        endpoint.use_cpus(self._cpus)
        return Driver(endpoint, self._send, self._handler, self._clock)

    def use_cpus(self, cpus: int) -> None:
        """Say how many CPUs the datapath can tell apart (RFC 9611)."""
        self._cpus = cpus
        self.command(lambda endpoint, _now: endpoint.use_cpus(cpus))

    def stop(self) -> None:
        """Drive nothing any more."""
        self._driver.stop()

    # --- inputs and commands --------------------------------------------------------------------

    def command(self, act: Callable[[Endpoint, float], T], /) -> T:
        """Run one input or command, then drain the core (`driver.Command`)."""
        return self._driver.command(act)

    def receive(self, datagram: bytes, path: Path) -> None:
        """Hand one received datagram to the core."""
        self._driver.receive(datagram, path)

    def resolve(self, request_id: RequestId, result: Result) -> None:
        """Answer a request of the core."""
        self._driver.resolve(request_id, result)

    def rekey_ike(self, ike_sa_id: IkeSaId) -> None:
        """Rekey an IKE SA.

        Raises:
            LocalError: It is gone or cannot be rekeyed now.
        """
        self.command(lambda endpoint, now: endpoint.rekey_ike(ike_sa_id, now))

    def rekey_child(self, child_sa_id: ChildSaId) -> None:
        """Rekey a Child SA.

        Raises:
            LocalError: It is gone or cannot be rekeyed now.
        """
        self.command(lambda endpoint, now: endpoint.rekey_child(child_sa_id, now))

    def terminate_ike(self, ike_sa_id: IkeSaId) -> None:
        """Delete an IKE SA with the peer."""
        self._quietly(lambda endpoint, now: endpoint.terminate_ike(ike_sa_id, now))

    def review_trust(self, ike_sa_id: IkeSaId) -> None:
        """Have the peer's certificates judged again; it is cut off if they are revoked."""
        self._quietly(lambda endpoint, now: endpoint.review_trust(ike_sa_id, now))

    def terminate_child(self, child_sa_id: ChildSaId) -> None:
        """Delete a Child SA with the peer."""
        self._quietly(lambda endpoint, now: endpoint.terminate_child(child_sa_id, now))

    def expire_child(self, child_sa_id: ChildSaId) -> None:
        """Say that a Child SA is no use any more."""
        self._quietly(lambda endpoint, now: endpoint.expire_child(child_sa_id, now))

    def soft_expire(self, child_sa_id: ChildSaId) -> None:
        """Say that an SA of a Child SA reached a soft limit."""
        self._quietly(lambda endpoint, now: endpoint.rekey_child(child_sa_id, now))

    def note_traffic(self, child_sa_id: ChildSaId) -> None:
        """Say that an authenticated packet arrived."""
        self._quietly(lambda endpoint, now: endpoint.note_traffic(child_sa_id, now))

    def unknown_spi(self, spi: Spi, source: IpAddress) -> None:
        """Say that ESP with an unknown SPI came from `source`."""
        self._quietly(lambda endpoint, now: endpoint.unknown_spi(spi, source, now))

    def mapping_changed(self, child_sa_id: ChildSaId, address: IpAddress, port: int) -> None:
        """Say that ESP came from another address or port."""
        self._quietly(lambda endpoint, now: endpoint.mapping_changed(child_sa_id, address, port, now))

    def _quietly(self, act: Callable[[Endpoint, float], object]) -> None:
        try:
            self._driver.command(act)
        except LocalError as error:
            _log.debug("command_refused", error=str(error))

    # --- getters --------------------------------------------------------------------------------

    def ike_sas(self) -> tuple[IkeSaInfo, ...]:
        """Return every IKE SA, ordered by id."""
        return tuple(sorted(self._driver.endpoint.ike_sas(), key=lambda sa: sa.ike_sa_id))

    def child_sas(self) -> tuple[ChildSaInfo, ...]:
        """Return every Child SA, ordered by id."""
        return tuple(sorted(self._driver.endpoint.child_sas(), key=lambda sa: sa.child_sa_id))

    def ike_sa(self, ike_sa_id: IkeSaId) -> IkeSaInfo | None:
        """Return one IKE SA; None when it is gone."""
        return self._driver.endpoint.ike_sa(ike_sa_id)

    def child_sa(self, child_sa_id: ChildSaId) -> ChildSaInfo | None:
        """Return one Child SA; None when it is gone."""
        return self._driver.endpoint.child_sa(child_sa_id)

    def ike_keys(self, ike_sa_id: IkeSaId) -> IkeSaKeys | None:
        """Return copies of the keys of one IKE SA, for key tables only; None when there are none."""
        return self._driver.endpoint.ike_keys(ike_sa_id)

    def sas_of(self, connection: str) -> tuple[tuple[IkeSaInfo, ...], tuple[ChildSaInfo, ...]]:
        """Return the IKE SAs of one connection, and their Child SAs, ordered by id."""
        return self._driver.endpoint.sas_of(connection)
