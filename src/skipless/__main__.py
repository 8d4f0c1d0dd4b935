"""`python -m skipless`, also under `torchrun -m`."""

from skipless.cli import main

if __name__ == "__main__":
    main()
