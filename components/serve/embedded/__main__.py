"""Run the embedded engine: ``python -m components.serve.embedded --base FOLDER --listen ...``."""

from components.serve.embedded import engine_process

if __name__ == "__main__":
    engine_process.main()
