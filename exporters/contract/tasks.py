"""The kinds of answers that a head gives: names alone, which every other file of the contract may use."""

MULTICLASS, BINARY, MULTILABEL, ORDINAL = "multiclass", "binary", "multilabel", "ordinal"
REGRESSION, EMBEDDING, BOXES, SEGMENTATION = "regression", "embedding", "boxes", "segmentation"
# Task -> what an answer of it looks like, without the batch axis, and what the truth of it is in the golden set:
# multiclass    (classes,) softmax; class index.
# binary        (1,) sigmoid, the probability of the second of two labels; class index 0 or 1.
# multilabel    (labels,) sigmoid; (labels,) of 0 and 1.
# ordinal       (labels - 1,) sigmoid, the probabilities that the label is above the 1st, 2nd ... one; class index.
# regression    (columns,) linear; (columns,) of numbers in their own units.
# embedding     (width,) of length 1; class index where it was trained, else none.
# boxes         (4,) x_min, y_min, x_max, y_max in shares 0..1 of the model's input; likewise.
# segmentation  (height, width, classes) softmax; (height, width) of class indices, 255 where nobody knows.
TASKS = (MULTICLASS, BINARY, MULTILABEL, ORDINAL, REGRESSION, EMBEDDING, BOXES, SEGMENTATION)
# The tasks whose answers are probabilities of labels of the whole picture.
CLASSIFICATIONS = frozenset({MULTICLASS, BINARY, MULTILABEL, ORDINAL})
# The tasks whose answers are numbers in units of their own, of any size.
MEASURED = frozenset({REGRESSION})
UNKNOWN_PIXEL = 255
