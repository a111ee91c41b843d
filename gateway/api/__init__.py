"""The only floor that knows gRPC and protobuf."""

import os

# gRPC reads this when it is first imported. Its default tells of every connection that ends, on stderr,
# between our own log lines; errors are still told.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
