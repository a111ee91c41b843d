"""A datapath for somebody else's engine, driven by the controller of ipsec-gateway: IKE here, packets there.

    python example_datapath.py /run/example.sock
    ipsecgw controller --datapath unix:/run/example.sock --config gateway.yaml

It keeps what it is given, prints it, and carries nothing: where it prints, program your hardware. A line
`expire` on standard input stands for an SA that has sent enough: the controller rekeys it. `acquire NAME`
stands for a packet that found a policy and no SA. The messages are those of proto/gateway/api/datapath/v1;
generate them for your language from there. Every call may come again, and must then change nothing.
"""

import functools
import itertools
import queue
import sys
import threading
from concurrent import futures

import grpc

from gateway.api.datapath.v1 import datapath_pb2 as dpb
from gateway.api.datapath.v1 import datapath_pb2_grpc as service
from gateway.api.types.v1 import ipsec_pb2 as types
from gateway.api.types.v1 import status_pb2 as status

say = functools.partial(print, flush=True)

CAPABILITIES = dpb.Capabilities(
    name="example",
    engines=[types.ENGINE_SOFTWARE],
    encryption=[dpb.EncryptionCapability(algorithm=types.ENCRYPTION_ALGORITHM_AES_GCM_16, key_bits=256)],
    protocols=[types.IPSEC_PROTOCOL_ESP],
    modes=[types.MODE_TUNNEL],
    esn=True,
    udp_encapsulation=True,
    max_replay_window=4096,
    # Sequence numbers live as long as this process: after a restart each SA gets new keys, never an IV twice.
    counters_survive_restart=False,
)


class ExampleDatapath(service.DatapathServiceServicer):
    def __init__(self):
        self.sas, self.policies = {}, {}  # by id or name: the message and its generation
        self.spis = itertools.count(0x1000)
        self.watchers = set()

    def GetCapabilities(self, request, context):
        return dpb.GetCapabilitiesResponse(capabilities=CAPABILITIES)

    def AllocateSpis(self, request, context):
        return dpb.AllocateSpisResponse(spis=[next(self.spis) for _ in range(request.count)])

    def InstallSas(self, request, context):
        results = []
        for sa in request.sas:
            direction = "in" if sa.direction == types.DIRECTION_INBOUND else "out"
            sa_id = f"{direction}:esp:{sa.destination}:{sa.spi:08x}"
            if sa_id not in self.sas:
                # sa.encryption_key is the key and, of AES-GCM, the salt (RFC 4106): give them to the engine.
                say(f"install {sa_id} {sa.connection}/{sa.child} key {len(sa.encryption_key)} bytes")
            self.sas[sa_id] = (sa, request.generation)
            results.append(status.ItemResult(name=sa_id, placement=types.ENGINE_SOFTWARE))
        return dpb.InstallSasResponse(results=results)

    def RemoveSas(self, request, context):
        for sa_id in request.sa_ids:
            if self.sas.pop(sa_id, None):
                say(f"remove {sa_id}")
        return dpb.RemoveSasResponse(results=[status.ItemResult(name=sa_id) for sa_id in request.sa_ids])

    def ListSas(self, request, context):
        response = dpb.ListSasResponse()
        for sa_id, (sa, generation) in self.sas.items():
            shown = response.sas.add(sa_id=sa_id, sa=sa, generation=generation)
            shown.placement = types.ENGINE_SOFTWARE
            shown.sa.ClearField("encryption_key")
            shown.sa.ClearField("integrity_key")
        return response

    def ApplyPolicies(self, request, context):
        for policy in request.policies:
            # Before the answer, nothing that it protects may leave in clear any more.
            say(f"protect {policy.name} {list(policy.local_ts)} to {list(policy.remote_ts)}")
            self.policies[policy.name] = (policy, request.generation)
        return dpb.ApplyPoliciesResponse(results=[status.ItemResult(name=p.name) for p in request.policies])

    def RemovePolicies(self, request, context):
        for name in request.names:
            self.policies.pop(name, None)
        return dpb.RemovePoliciesResponse(results=[status.ItemResult(name=name) for name in request.names])

    def ListPolicies(self, request, context):
        return dpb.ListPoliciesResponse(policies=[policy for policy, _ in self.policies.values()])

    def GetCounters(self, request, context):
        return dpb.GetCountersResponse(sas=[dpb.SaCounters(sa_id=sa_id) for sa_id in self.sas])

    def Reconcile(self, request, context):
        removed = []
        for kept in (self.sas, self.policies):
            removed += [name for name, (_, generation) in kept.items() if generation < request.generation]
        for name in removed:
            self.sas.pop(name, None)
            self.policies.pop(name, None)
        return dpb.ReconcileResponse(removed=removed)

    def WatchEvents(self, request, context):
        events = queue.SimpleQueue()
        self.watchers.add(events)
        context.add_callback(lambda: events.put(None))
        yield dpb.WatchEventsResponse()  # no event: the watch is in place
        while (event := events.get()) is not None:
            yield dpb.WatchEventsResponse(event=event)
        self.watchers.discard(events)

    def tell(self, event):
        for events in tuple(self.watchers):
            events.put(event)


def main():
    datapath = ExampleDatapath()
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
    service.add_DatapathServiceServicer_to_server(datapath, server)
    server.add_insecure_port(f"unix:{sys.argv[1]}")
    server.start()
    say("ready")
    for line in sys.stdin:
        verb, _, name = line.strip().partition(" ")
        if verb == "acquire":
            acquire = dpb.Acquire(policy=name, source="10.1.0.1", destination="10.2.0.1")
            datapath.tell(dpb.DatapathEvent(acquire=acquire))
        for sa_id, (sa, _) in tuple(datapath.sas.items()):
            if verb == "expire" and sa.direction == types.DIRECTION_OUTBOUND:
                datapath.tell(
                    dpb.DatapathEvent(soft_expire=dpb.Expire(sa_id=sa_id, spi=sa.spi, limit="packets"))
                )
    threading.Event().wait()


if __name__ == "__main__":
    main()
