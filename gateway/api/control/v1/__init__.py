"""Generated from proto/gateway/api/control/v1; do not edit."""
