"""What a process holds while it works, so that no other takes it: leases, machines, parts of a quota."""
