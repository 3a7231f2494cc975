"""What `runner.py` gives both runners alike: made conversations, chat servers, and the same work for inspect_ai."""
