"""Recovery of pruned encoders from the dense model (`distill`).

`data` cuts text into batches, `losses` compare student and teacher, `loop` trains, `model` runs an encoder, `state` is
what an interrupted run goes on from, `run` joins them; `distill` is what a caller sees.
"""
