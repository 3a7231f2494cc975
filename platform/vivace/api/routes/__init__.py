"""The addresses of the API: each file here has a `router`, and is served."""
