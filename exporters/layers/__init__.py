"""Where does an artifact leave the Keras model: what its layers give, a tap for each format, and the comparison over them."""
