"""Generated from proto/gateway/api/datapath/v1; do not edit."""
