"""Sessions of OpenAI's Realtime API: what is sent, and how they are opened, read and fail."""
