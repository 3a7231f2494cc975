"""Reading less of the prompt, and the full reading it is measured against."""
