"""The only floor that knows gRPC and protobuf."""
