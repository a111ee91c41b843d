"""Generated from proto/gateway/api/types/v1; do not edit."""
