"""`python -m console` is `reinstate`."""

from console.main import main

if __name__ == "__main__":
    main()
