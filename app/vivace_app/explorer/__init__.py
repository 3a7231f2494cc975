"""The parts of the conversation page: which systems, which conversation, what was said, replied, judged and spent."""
