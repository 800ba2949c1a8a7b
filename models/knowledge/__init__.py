"""Documents as the product sees them: units, passages, ranking and citations."""
