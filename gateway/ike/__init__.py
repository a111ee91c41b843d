"""IKEv2, sans-IO: datagrams and `now` in, datagrams, requests and events out (RFC 7296)."""
