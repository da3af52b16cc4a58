"""The engine on Ray Data: a shard is a row, and reading, encoding and writing are operators over a cluster.

Ray is imported when a cluster is asked for and not before.
"""
