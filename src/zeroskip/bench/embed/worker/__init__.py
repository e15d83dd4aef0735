"""The process that runs one engine for `zeroskip bench embed`: orders come in, answers go out, both as lines of JSON.

Nothing here imports zeroskip but the engine that is zeroskip: a rival that needs an old Python runs this package with
its own interpreter and what it has installed. A process holds one engine and no more.
"""
