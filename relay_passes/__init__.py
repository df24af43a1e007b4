"""Graph-level passes on Relax, one file each; :mod:`.pipeline` reads as their table of contents.

(The name is historical: upstream TVM has replaced Relay by Relax, and the passes work on Relax.)
"""
