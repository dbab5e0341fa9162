"""The commands, a file for each kind: what they take, and which part of the pipeline does it. `pipeline.cli` names them."""
