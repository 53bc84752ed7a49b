"""What training reaches: from finished runs to tables beside the paper's numbers."""
