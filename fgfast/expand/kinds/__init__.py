"""The kinds of expansion, a module each, which do not import each other."""
