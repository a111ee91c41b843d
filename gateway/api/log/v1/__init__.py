"""Generated from proto/gateway/api/log/v1; do not edit."""
