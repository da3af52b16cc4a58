"""The published interfaces of other tools, on Clipsieve's engine: a module a tool, with the names, parameters and
defaults that programs written for it use. Each is thin: parameters in, native scores, rules and dedup underneath.
"""
