"""Reading fewer weights for each token, and the dense reading it is measured against."""
