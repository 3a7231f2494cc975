"""Sets of conversations: made, read, checked, described, voiced and written."""
