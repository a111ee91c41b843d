"""Generated from proto/gateway/api/bench/v1; do not edit."""
