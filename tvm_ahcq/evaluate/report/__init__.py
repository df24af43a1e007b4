"""HTML and SVG reports."""
