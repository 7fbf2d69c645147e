"""A head a room: detector, decoding, training, recipe, conversion; `registry` is the only list of heads."""
