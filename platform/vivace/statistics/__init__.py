"""Statistics: intervals, paired tests and regression detection on recorded outcomes."""
