"""What a browser or a monitoring system reads over HTTP."""
