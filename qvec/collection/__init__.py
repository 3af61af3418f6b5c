"""The public object: a collection, how it is made and opened, and its parts."""
