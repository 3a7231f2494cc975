"""The engine: leases, execution, the durable queue and its workers."""
