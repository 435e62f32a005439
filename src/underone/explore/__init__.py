"""The web page that draws live: two settings side by side, from the same noise."""
