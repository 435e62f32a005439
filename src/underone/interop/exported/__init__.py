"""The two modules that are copied into an exported folder, where diffusers imports them."""
