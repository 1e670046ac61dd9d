"""Run the embedded engine: ``python -m components.extensions.embedded --base FOLDER ...``."""

from components.extensions.embedded import engine_process

if __name__ == "__main__":
    engine_process.main()
