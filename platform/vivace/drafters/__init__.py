"""EAGLE-3 drafters for any model, trained here on text that the model writes itself."""
