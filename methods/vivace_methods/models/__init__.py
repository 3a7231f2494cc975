"""Models to measure methods on: loaded ones and random ones, and what one of their steps has to move and compute."""
