"""How the layers of any network are found: block lists, the order in which they run, and what lies around them."""
