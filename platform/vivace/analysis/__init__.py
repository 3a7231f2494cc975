"""What recorded results say: comparisons, breakdowns, gaps, the judge's error, how to make a run again."""
