"""Whether speculation will pay: answers with all their passes timed, and what follows from them for others."""
