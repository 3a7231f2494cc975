"""The store: tables, engines, transactions, records, queries and artifacts. It knows nothing above it."""
