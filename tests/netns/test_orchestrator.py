"""An orchestrator with keys of its own (RFC 9061, IKE-less) drives two agents, knowing only their reflection.

Nothing of `gateway.api` is imported here but the address of a socket: services, methods and messages are
learned from the agents themselves, as another vendor's controller would from the .proto files.
"""

import base64
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status

from gateway.bench.topology import Namespace, SiteToSite, site_to_site

pytestmark = pytest.mark.netns

SERVICE = "gateway.api.datapath.v1.DatapathService"
CALL_S, WATCH_S, START_S = 30, 120, 60


@dataclass(slots=True)
class Agent:
    """One agent, as reflection shows it; messages go in and come out as plain data."""

    channel: grpc.Channel
    database: ProtoReflectionDescriptorDatabase = field(init=False)
    pool: DescriptorPool = field(init=False)

    def __post_init__(self) -> None:
        self.database = ProtoReflectionDescriptorDatabase(self.channel)
        self.pool = DescriptorPool(self.database)

    def _method(self, name: str) -> tuple[Any, Any]:
        method = self.pool.FindServiceByName(SERVICE).methods_by_name[name]
        return GetMessageClass(method.input_type), GetMessageClass(method.output_type)

    def call(self, name: str, **request: object) -> dict[str, Any]:
        asked, answered = self._method(name)
        call = self.channel.unary_unary(
            f"/{SERVICE}/{name}",
            request_serializer=asked.SerializeToString,
            response_deserializer=answered.FromString,
        )
        return MessageToDict(
            call(ParseDict(request, asked()), timeout=CALL_S), preserving_proto_field_name=True
        )

    def watch(self) -> Iterator[dict[str, Any]]:
        asked, answered = self._method("WatchEvents")
        stream = self.channel.unary_stream(
            f"/{SERVICE}/WatchEvents",
            request_serializer=asked.SerializeToString,
            response_deserializer=answered.FromString,
        )(asked(), timeout=WATCH_S)
        for message in stream:
            yield MessageToDict(message, preserving_proto_field_name=True)


@contextmanager
def agent_in(namespace: Namespace, run_dir: Path) -> Iterator[Agent]:
    """Run `ipsecgw agent` while the context lasts."""
    path = run_dir / "datapath.sock"
    process = namespace.popen(
        *(sys.executable, "-m", "gateway.cli.main", "agent", "--listen", f"unix:{path}"),
        stderr=subprocess.PIPE,
    )
    try:
        with grpc.insecure_channel(f"unix:{path}") as channel:
            grpc.channel_ready_future(channel).result(timeout=START_S)
            yield Agent(channel)
    finally:
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=START_S)
    assert process.returncode == 0, log


@pytest.fixture(scope="module")
def sites() -> Iterator[SiteToSite]:
    with site_to_site(f"or{os.getpid()}") as topology:
        yield topology


@pytest.fixture(scope="module")
def running(sites: SiteToSite, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Agent, Agent]]:
    homes = [tmp_path_factory.mktemp(name) for name in ("a", "b")]
    with agent_in(sites.a.gateway, homes[0]) as a, agent_in(sites.b.gateway, homes[1]) as b:
        yield a, b


@pytest.fixture
def agents(running: tuple[Agent, Agent]) -> Iterator[tuple[Agent, Agent]]:
    """Return both agents, with nothing installed, before the test and after it."""
    yield running
    for agent in running:
        agent.call("RemoveSas", sa_ids=[item["sa_id"] for item in agent.call("ListSas").get("sas", [])])
        named = agent.call("ListPolicies").get("policies", [])
        agent.call("RemovePolicies", names=[item["name"] for item in named])


def selector(number: int) -> dict[str, object]:
    return {"start": f"10.{number}.0.0", "end": f"10.{number}.255.255"}


def key(spi: int) -> bytes:
    """Return AES-256's key and the salt of an SA: another for each, because no agent takes one twice."""
    return spi.to_bytes(4, "big") * 9


def sa(number: int, direction: str, spis: tuple[int, int]) -> dict[str, Any]:
    """Return one direction of the Child SA as gateway `number` (1 or 2) sees it; `spis` are inbound ones."""
    here, there = number, 3 - number
    receiver = here if direction == "INBOUND" else there
    sender = 3 - receiver
    return {
        "spi": spis[receiver - 1],
        "direction": f"DIRECTION_{direction}",
        "source": f"192.0.2.{sender}",
        "destination": f"192.0.2.{receiver}",
        "encryption": "ENCRYPTION_ALGORITHM_AES_GCM_16",
        "encryption_key": base64.b64encode(key(spis[receiver - 1])).decode(),
        "key_bits": 256,
        "local_ts": [selector(here)],
        "remote_ts": [selector(there)],
        "connection": "by-hand",
        "child": "lan",
        "child_sa_id": 1,
    }


def policy(number: int) -> dict[str, object]:
    return {
        "name": "by-hand/lan",
        "local_ts": [selector(number)],
        "remote_ts": [selector(3 - number)],
        "acquire": True,
        "connection": "by-hand",
        "child": "lan",
    }


def installed(agents: tuple[Agent, Agent], generation: int) -> tuple[int, int]:
    """Give both agents the policy and both directions; return the inbound SPIs."""
    first, second = (agent.call("AllocateSpis", count=1)["spis"][0] for agent in agents)
    for number, agent in enumerate(agents, 1):
        agent.call("ApplyPolicies", policies=[policy(number)], generation=generation)
        answer = agent.call(
            "InstallSas",
            sas=[sa(number, direction, (first, second)) for direction in ("INBOUND", "OUTBOUND")],
            generation=generation,
        )
        assert [result.get("error") for result in answer["results"]] == [None, None]
        assert {result["placement"] for result in answer["results"]} == {"ENGINE_SOFTWARE"}
    return first, second


def test_reflection_lists_the_service_with_health_and_all_its_methods(agents: tuple[Agent, Agent]) -> None:
    agent, _ = agents

    assert set(agent.database.get_services()) >= {SERVICE, "grpc.health.v1.Health"}
    assert set(agent.pool.FindServiceByName(SERVICE).methods_by_name) == {
        *("GetCapabilities", "AllocateSpis", "InstallSas", "RemoveSas", "ListSas", "ApplyPolicies"),
        *("RemovePolicies", "ListPolicies", "GetCounters", "Reconcile", "WatchEvents"),
    }


def test_keys_of_an_orchestrator_carry_traffic_and_are_counted(
    sites: SiteToSite, agents: tuple[Agent, Agent]
) -> None:
    installed(agents, generation=1)

    pinged = sites.a.host.run("ping", "-c3", "-i0.1", "-W2", sites.b.host_address, check=False)

    assert " 0% packet loss" in pinged.stdout
    for agent in agents:
        counted = agent.call("GetCounters")["sas"]
        # 64-bit integers are texts in JSON.
        assert [(item["packets"], item["bytes"], item["sequence"]) for item in counted] == [
            ("3", "252", "3")
        ] * 2
        for item in agent.call("ListSas")["sas"]:
            assert "encryption_key" not in item["sa"]
            assert item["placement"] == "ENGINE_SOFTWARE"
    mtu = {item["sa_id"][:4]: item.get("effective_mtu") for item in agents[0].call("ListSas")["sas"]}
    assert mtu["out:"] == 1446


def test_equal_installs_have_no_effect_and_unequal_ones_are_refused(
    sites: SiteToSite, agents: tuple[Agent, Agent]
) -> None:
    spis = installed(agents, generation=1)
    sites.a.host.run("ping", "-c1", "-W2", sites.b.host_address)
    inbound = sa(1, "INBOUND", spis)

    again = agents[0].call("InstallSas", sas=[inbound], generation=1)["results"][0]
    other = agents[0].call("InstallSas", sas=[{**inbound, "child": "dmz"}], generation=1)["results"][0]
    removed = [agents[0].call("RemoveSas", sa_ids=["in:esp:192.0.2.1:0000beef"]) for _ in range(2)]

    assert "error" not in again
    assert other["error"]["reason"] == "ERROR_REASON_SPI_IN_USE"
    assert [answer["results"][0].get("error") for answer in removed] == [None, None]
    # The equal install did not start its counters and sequence numbers anew.
    assert all(item["packets"] == "1" for item in agents[0].call("GetCounters")["sas"])


def test_a_packet_without_an_sa_asks_for_one_and_nothing_leaves_in_clear(
    sites: SiteToSite, agents: tuple[Agent, Agent]
) -> None:
    events = agents[0].watch()
    assert "event" not in next(events)  # The watch is in place.
    agents[0].call("ApplyPolicies", policies=[policy(1)], generation=1)

    pinged = sites.a.host.run("ping", "-c1", "-W1", sites.b.host_address, check=False)
    acquire = next(events)["event"]["acquire"]

    assert "100% packet loss" in pinged.stdout
    assert (acquire["policy"], acquire["source"], acquire["destination"], acquire["protocol"]) == (
        *("by-hand/lan", sites.a.host_address, sites.b.host_address),
        1,
    )


def test_a_bad_request_is_refused_whole_with_every_field(agents: tuple[Agent, Agent]) -> None:
    agent = agents[0]
    (spi,) = agent.call("AllocateSpis", count=1)["spis"]
    good = sa(1, "INBOUND", (spi, 0x1000))
    bad = {**good, "spi": 12, "source": "192.0.2.300", "replay_window": 5000, "local_ts": []}

    with pytest.raises(grpc.RpcError) as refused:
        agent.call("InstallSas", sas=[good, bad], generation=1)

    assert isinstance(refused.value, grpc.Call)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    status = rpc_status.from_call(refused.value)
    assert status is not None
    info, request = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    assert any(detail.Unpack(info) for detail in status.details)
    assert any(detail.Unpack(request) for detail in status.details)
    assert info.reason == "INVALID_ARGUMENT"
    fields = {violation.field for violation in request.field_violations}
    assert fields == {"sas[1].spi", "sas[1].source", "sas[1].replay_window", "sas[1].local_ts"}
    assert all(violation.description for violation in request.field_violations)
    assert "sas" not in agent.call("ListSas")


def test_a_key_of_the_wrong_length_is_refused_alone(agents: tuple[Agent, Agent]) -> None:
    agent = agents[0]
    spis = agent.call("AllocateSpis", count=2)["spis"]
    good, bad = (sa(1, "INBOUND", (spi, 0x1000)) for spi in spis)
    bad["encryption_key"] = base64.b64encode(b"short").decode()

    answers = agent.call("InstallSas", sas=[bad, good], generation=1)["results"]

    assert answers[0]["error"]["reason"] == "ERROR_REASON_KEY_LENGTH"
    assert "36" in answers[0]["error"]["message"]
    assert "error" not in answers[1]
    assert [item["sa"]["spi"] for item in agent.call("ListSas")["sas"]] == [spis[0]]


def test_a_hard_limit_is_told_and_kept(sites: SiteToSite, agents: tuple[Agent, Agent]) -> None:
    spis = tuple(agent.call("AllocateSpis", count=1)["spis"][0] for agent in agents)
    assert len(spis) == 2
    for number, agent in enumerate(agents, 1):
        agent.call("ApplyPolicies", policies=[policy(number)], generation=1)
        limited = {"lifetime": {"soft": {"packets": "2"}, "hard": {"packets": "4"}}}
        agent.call(
            "InstallSas",
            sas=[{**sa(number, way, spis), **limited} for way in ("INBOUND", "OUTBOUND")],
            generation=1,
        )
    events = agents[0].watch()
    next(events)

    pinged = sites.a.host.run("ping", "-c6", "-i0.05", "-W0.5", sites.b.host_address, check=False)
    told: list[str] = []
    while told.count("hard_expire") < 2:
        event = next(events)["event"]
        told += [kind for kind in ("soft_expire", "hard_expire") if kind in event]

    assert "6 packets transmitted, 4 received" in pinged.stdout
    assert told == ["soft_expire"] * 2 + ["hard_expire"] * 2


# The last: nothing of generation 1 can be installed any more.
def test_reconcile_removes_what_is_older_and_only_that(
    sites: SiteToSite, agents: tuple[Agent, Agent]
) -> None:
    spis = installed(agents, generation=1)
    agent = agents[0]
    agent.call("InstallSas", sas=[sa(1, "INBOUND", spis)], generation=2)

    removed = agent.call("Reconcile", generation=2)["removed"]
    stale = agent.call("InstallSas", sas=[sa(1, "OUTBOUND", spis)], generation=1)["results"][0]

    assert set(removed) == {f"out:esp:192.0.2.2:{spis[1]:08x}", "by-hand/lan"}
    assert [item["sa_id"] for item in agent.call("ListSas")["sas"]] == [f"in:esp:192.0.2.1:{spis[0]:08x}"]
    assert stale["error"]["reason"] == "ERROR_REASON_STALE_GENERATION"
