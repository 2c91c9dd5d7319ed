"""From finished runs to figures: PDF and PNG, with a list of what they show."""
