"""The boards as a folder of pages that needs no server: to put on any web space, or to open from the disk."""
