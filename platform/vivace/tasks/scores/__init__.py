"""How answers are scored: metrics, stated results, mathematical equality."""
