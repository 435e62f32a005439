"""The web page that draws live: two settings side by side, of the same noise."""
