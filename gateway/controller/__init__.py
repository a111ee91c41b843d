"""The asyncio shell around the IKE core."""
