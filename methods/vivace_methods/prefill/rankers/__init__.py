"""What a token of a prompt is worth: rankers, each of which gives scores from attention, or without any."""
