"""Regression jobs: runs that are made by themselves, held against those before, and told of where they are worse."""
