"""Keep a copy of all connections that is right whatever happens to the network or the controller.

    python follow_connections.py unix:///run/ipsecgw/control-viewer.sock

prints every change of state as one line. The messages are those of proto/gateway/api/control/v1.
"""

import sys
import time

import grpc

from gateway.api.control.v1 import control_pb2 as pb
from gateway.api.control.v1 import control_pb2_grpc as service


def follow(stub, told):
    connections = {}  # what is known, by name
    unconfirmed = set()  # during a resync: what it did not name yet
    revision = ""  # a program that keeps it (and `connections`) in a file goes on after a restart of its own
    while True:
        try:
            for answer in stub.WatchConnections(pb.WatchConnectionsRequest(revision=revision)):
                if answer.resync:
                    unconfirmed = set(connections)
                for change in answer.changes:
                    name = change.removed or change.upserted.connection.name
                    unconfirmed.discard(name)
                    if change.removed:
                        if connections.pop(name, None) is not None:
                            told(name, "removed")
                        continue
                    state = pb.ConnectionState.Name(change.upserted.status.state)
                    if connections.get(name) != state:
                        connections[name] = state
                        told(name, state.removeprefix("CONNECTION_STATE_").lower())
                if answer.synced:
                    for name in unconfirmed:
                        del connections[name]
                        told(name, "removed")
                    unconfirmed = set()
                # Empty in the middle of a snapshot, from which nobody can go on.
                revision = answer.revision or revision
        except grpc.RpcError as error:
            if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
                raise
        time.sleep(0.5)


if __name__ == "__main__":
    with grpc.insecure_channel(sys.argv[1]) as channel:
        follow(service.ControlServiceStub(channel), lambda name, what: print(name, what, flush=True))
