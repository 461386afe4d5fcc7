"""One module per paper: what is too long for a notebook's cell and belongs to that paper alone."""
