"""Fuzz targets of both services: any request is answered, or refused for a reason that is not our mistake."""

import asyncio
import inspect
from functools import cache

from google.protobuf.message import DecodeError

from gateway.agent.agent import Agent
from gateway.api.control.v1 import connection_pb2 as cpb
from gateway.api.control.v1 import control_pb2 as pb
from gateway.api.control_service import ControlService
from gateway.api.datapath.v1 import datapath_pb2 as dpb
from gateway.api.datapath_service import DatapathService
from gateway.api.errors import answer_of
from gateway.api.filter import parse_filter
from gateway.api.state_file import keep_secrets
from gateway.api.types.v1 import ipsec_pb2 as types
from gateway.api.violations import InvalidArgument
from tests.api.fake_controller import FakeController
from tests.fakes.datapath import FakeDatapath
from tests.fuzz.target import Target, choice

CONTROL = sorted(pb.DESCRIPTOR.services_by_name["ControlService"].methods_by_name)
DATAPATH = sorted(dpb.DESCRIPTOR.services_by_name["DatapathService"].methods_by_name)
MOST_PARTS = 4


@cache
def loop():
    return asyncio.new_event_loop()


def connection(name):
    message = cpb.Connection(
        name=name,
        remote=cpb.Side(address="192.0.2.2"),
        children=[cpb.Child(name="lan", local_ts=["10.1.0.0/16"], remote_ts=["10.2.0.0/16"])],
    )
    message.local.auth.psk.value = "key"
    return message


async def ask(service, module, method, data):
    """Call a method; of a stream of answers, read the first few that come at once."""
    name = module.DESCRIPTOR.package
    found = module.DESCRIPTOR.services_by_name[name.split(".")[-2].capitalize() + "Service"]
    described = found.methods_by_name[method]
    request = getattr(module, described.input_type.name)()
    try:
        request.ParseFromString(data)
    except DecodeError:
        return
    if method == "GetOperation":
        request.ClearField("wait")

    async def requests():
        for _ in range(2):
            yield request

    asked = requests() if described.client_streaming else request
    try:
        answer = getattr(service, method)(asked, None)
        if inspect.isasyncgen(answer):
            await read(answer)
        else:
            (await answer).SerializeToString()
    except Exception as error:
        if answer_of(error).is_bug:
            raise


async def read(answers):
    try:
        async with asyncio.timeout(0):
            for _ in range(MOST_PARTS):
                (await anext(answers)).SerializeToString()
    except (TimeoutError, StopAsyncIteration):
        pass
    finally:
        await answers.aclose()


async def control(data):
    controller = FakeController()
    service = ControlService(controller)
    await service.ApplyConnections(pb.ApplyConnectionsRequest(connections=[connection("paris")]), None)
    await ask(service, pb, choice(data[0], CONTROL), data[1:])


async def datapath(data):
    agent = Agent(FakeDatapath(), fingerprint_key=b"fuzz", grace_s=0.0)
    await agent.start()
    try:
        await ask(DatapathService(agent), dpb, choice(data[0], DATAPATH), data[1:])
    finally:
        await agent.close()


def run_control(data):
    if data:
        loop().run_until_complete(control(data))


def run_datapath(data):
    if data:
        loop().run_until_complete(datapath(data))


def run_filter(data):
    entry = pb.ConnectionEntry(connection=connection("paris"), generation=3)
    try:
        matches = parse_filter(data.decode("utf-8", "replace"), pb.ConnectionEntry.DESCRIPTOR)
    except InvalidArgument:
        return
    assert matches is None or matches(entry) in (True, False)


def run_kept(data):
    """What is kept of a connection can be kept again."""
    middle = len(data) // 2
    before, after = cpb.Connection(), cpb.Connection()
    try:
        before.ParseFromString(data[:middle])
        after.ParseFromString(data[middle:])
    except DecodeError:
        return
    keep_secrets(after, before)
    cpb.Connection.FromString(after.SerializeToString())


def control_seeds():
    requests = {
        "ApplyConnections": pb.ApplyConnectionsRequest(
            connections=[connection("rome")], prune=True, generation=3, etags={"paris": "*"}
        ),
        "StreamConnections": pb.StreamConnectionsRequest(connections=[connection("rome")], prune=True),
        "ListConnections": pb.ListConnectionsRequest(filter="status.state = up", page_size=2, page_token="x"),
        "GetConnection": pb.GetConnectionRequest(name="paris", read_mask={"paths": ["etag"]}),
        "WatchConnections": pb.WatchConnectionsRequest(revision="life-1"),
        "WatchEvents": pb.WatchEventsRequest(after_sequence=0),
        "Rekey": pb.RekeyRequest(target=pb.Target(connection="paris"), request_id="1"),
        "ExportKeys": pb.ExportKeysRequest(connection="paris"),
    }
    for method, request in requests.items():
        yield bytes((CONTROL.index(method),)) + request.SerializeToString()


def datapath_seeds():
    sa = types.SecurityAssociation(
        spi=0x1001,
        direction=types.DIRECTION_INBOUND,
        source="192.0.2.2",
        destination="192.0.2.1",
        protocol=types.IPSEC_PROTOCOL_ESP,
        mode=types.MODE_TUNNEL,
        encryption=types.ENCRYPTION_ALGORITHM_AES_GCM_16,
        encryption_key=bytes(36),
        connection="sdn",
        child="lan",
    )
    net = types.TrafficSelector(start="10.1.0.0", end="10.1.255.255")
    policy = types.Policy(name="sdn/lan", action=types.ACTION_PROTECT, local_ts=[net], remote_ts=[net])
    requests = {
        "InstallSas": dpb.InstallSasRequest(sas=[sa], generation=1, owner="sdn"),
        "ApplyPolicies": dpb.ApplyPoliciesRequest(policies=[policy], owner="sdn"),
        "RemoveSas": dpb.RemoveSasRequest(sa_ids=["in:esp:192.0.2.1:00001001"]),
        "Reconcile": dpb.ReconcileRequest(generation=3, owner="sdn"),
        "AllocateSpis": dpb.AllocateSpisRequest(count=3, destination="192.0.2.1"),
        "WatchEvents": dpb.WatchEventsRequest(owner="sdn"),
    }
    for method, request in requests.items():
        yield bytes((DATAPATH.index(method),)) + request.SerializeToString()


def filter_seeds():
    yield b"connection.name = p* AND (generation > 2 OR NOT status.state = up)"
    yield b"connection.children.local_ts:10 status.last_failure:*"


def kept_seeds():
    kept, again = connection("paris"), connection("paris")
    again.local.auth.psk.Clear()
    again.local.auth.psk.is_set = True
    # Both halves of an input are as long; a name is what fills the shorter one.
    again.name += "s" * (kept.ByteSize() - again.ByteSize())
    yield kept.SerializeToString() + again.SerializeToString()


API_TARGETS = (
    Target("control_service", control_seeds, run_control, 2000),
    Target("datapath_service", datapath_seeds, run_datapath, 1000),
    Target("filter", filter_seeds, run_filter, 500),
    Target("kept_connection", kept_seeds, run_kept, 1000),
)
