"""From a folder of photographs to one Keras model that takes raw pixels, and the command line over all of it."""
