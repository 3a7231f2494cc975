"""What proposes tokens: EAGLE-3's layer, an ordinary small model, and what stood in the text before."""
