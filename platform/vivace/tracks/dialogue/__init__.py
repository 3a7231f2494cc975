"""The dialogue track: Audio MultiChallenge, spoken multi-turn conversations judged by rubric."""
