"""The machine that this runs on: its settings for the network, its packages, its memory, and the record of it all."""
