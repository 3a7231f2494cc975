"""The client through which models and judges are called: requests, tries, pace, kept answers, prices, refusals."""
