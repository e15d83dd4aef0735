"""The fastest model above a quality floor (`compile(keep_cosine=...)`).

`allocation` chooses on tables of numbers, `times` and `losses` fill them, `search` goes from a prediction to a measured
model, `report` says what was found.
"""
