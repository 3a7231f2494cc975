"""What leaves for terminals, logs and records: without keys, without control characters, under short names."""
