"""`python -m pipeline` is the same as `cutpoint`."""

from pipeline.cli import main

if __name__ == "__main__":
    main()
